//! Running child processes from the root of the workspace: their output goes straight through, a
//! non-zero end is an error, and a process that outlives its limit is killed.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// `cargo ARGS`, to be run in the root of the workspace by the cargo that runs this program.
pub(crate) fn cargo(args: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(args).current_dir(root());
    // Set by the cargo that runs us; children that compile must not inherit it, or they would
    // rebuild what depends on it.
    for variable in ["CARGO_MANIFEST_DIR", "CARGO_MANIFEST_PATH", "CARGO_PKG_VERSION"] {
        command.env_remove(variable);
    }
    command
}

/// The root of the workspace: where the cargo that runs this program found it. Where it was
/// compiled is second choice, for a checkout can have been moved since.
fn root() -> PathBuf {
    let here = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    let mut folder = here.unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    assert!(folder.pop(), "xtask is a folder of the workspace");
    folder
}

/// Runs to the end. Blocks without a limit.
pub(crate) fn run(command: &mut Command) -> Result<(), String> {
    let shown = describe(command);
    let status = command.status().map_err(|e| format!("cannot start `{shown}`: {e}"))?;
    judge(&shown, status)
}

/// Runs to the end or until `limit` has passed; then kills the process and says so.
pub(crate) fn run_within(command: &mut Command, limit: Duration) -> Result<(), String> {
    let shown = describe(command);
    let mut child = command.spawn().map_err(|e| format!("cannot start `{shown}`: {e}"))?;
    match wait_until(&mut child, Instant::now() + limit) {
        Ok(Some(status)) => judge(&shown, status),
        Ok(None) => {
            let ended = child.kill().and_then(|()| child.wait());
            let how = ended.map_or_else(|e| e.to_string(), |status| status.to_string());
            Err(format!("`{shown}` was killed after {} s ({how})", limit.as_secs()))
        }
        Err(e) => Err(format!("cannot wait for `{shown}`: {e}")),
    }
}

/// True if the command can be run and ends with 0. Its output is dropped.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    let quiet = command.stdout(Stdio::null()).stderr(Stdio::null()).stdin(Stdio::null());
    quiet.status().is_ok_and(|status| status.success())
}

fn wait_until(child: &mut Child, deadline: Instant) -> std::io::Result<Option<ExitStatus>> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= deadline {
            return Ok(None);
        }
        thread::sleep(POLL_INTERVAL);
    }
}

fn judge(shown: &str, status: ExitStatus) -> Result<(), String> {
    if status.success() { Ok(()) } else { Err(format!("`{shown}` failed ({status})")) }
}

fn describe(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or_default();
    let words = std::iter::once(program).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_other_than_zero_is_an_error_that_names_the_command() {
        let error = run(&mut cargo(&["no-such-subcommand-at-all"])).expect_err("must fail");
        assert!(error.contains("cargo no-such-subcommand-at-all"), "{error}");
    }

    #[test]
    fn a_process_over_its_limit_is_killed() {
        let mut command = Command::new("sleep");
        let error = run_within(command.arg("600"), Duration::ZERO).expect_err("must be killed");
        assert!(error.contains("`sleep 600` was killed"), "{error}");
    }

    #[test]
    fn a_missing_program_is_an_error() {
        let error = run(&mut Command::new("quorate-no-such-program")).expect_err("must fail");
        assert!(error.contains("cannot start"), "{error}");
        assert!(!succeeds(&mut Command::new("quorate-no-such-program")));
    }
}
