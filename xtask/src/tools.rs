//! The tools that checks need beyond a Rust toolchain: each is probed by running it and installed
//! only if missing. Nothing is installed that no check uses.

use std::process::Command;

use crate::process;

/// What cargo-deny can check without a network. Known vulnerabilities come from GitHub, which not
/// every CI reaches; `cargo xtask deny --advisories` adds them.
pub(crate) const DENY_CHECKS: &[&str] =
    &["deny", "--workspace", "check", "bans", "licenses", "sources"];

/// rustfmt and clippy; a minimal toolchain comes without them.
pub(crate) fn components() -> Result<(), String> {
    for (subcommand, component) in [("fmt", "rustfmt"), ("clippy", "clippy")] {
        if !process::succeeds(&mut process::cargo(&[subcommand, "--version"])) {
            println!("installing {component}");
            process::run(Command::new("rustup").args(["component", "add", component]))?;
        }
    }
    Ok(())
}

/// cargo-nextest, the test runner: each test in its own process, with a time limit.
pub(crate) fn nextest() -> Result<(), String> {
    installed("nextest", "cargo-nextest")
}

/// cargo-deny.
pub(crate) fn deny() -> Result<(), String> {
    installed("deny", "cargo-deny")
}

/// `ip` and `tc`, which wire the networks of the fault tests. Where they cannot be installed those
/// tests say that they were skipped.
pub(crate) fn iproute2() -> Result<(), String> {
    let is_there = |program: &str| process::succeeds(Command::new(program).arg("-V"));
    if is_there("ip") && is_there("tc") {
        return Ok(());
    }
    println!("installing iproute2");
    let install = ["install", "--yes", "--no-install-recommends", "iproute2"];
    if !process::succeeds(Command::new("apt-get").args(install)) {
        println!("iproute2 is missing, and apt-get could not install it: install it by hand");
    }
    Ok(())
}

fn installed(subcommand: &str, package: &str) -> Result<(), String> {
    if process::succeeds(&mut process::cargo(&[subcommand, "--version"])) {
        return Ok(());
    }
    println!("installing {package} (once; some minutes)");
    process::run(&mut process::cargo(&["install", "--locked", package]))
}
