//! One node process, from the conductor's side: started, spoken to, signalled, reaped.
//!
//! Signals go to the process's own id, and only while it is not reaped, so they reach nobody else.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, Command as Program, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::protocol::{Command, Report, Setup};
use crate::trouble::{Result, Trouble};

/// A process that is killed and reaped when this is dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    stdin: Option<ChildStdin>,
    heard: Arc<Mutex<Heard>>,
}

/// What a process said so far.
#[derive(Debug, Default)]
struct Heard {
    status: Option<(Option<usize>, u64)>,
    failed: Option<String>,
    /// Answers, oldest first.
    answers: VecDeque<Report>,
}

impl Process {
    /// Starts a node process by a command that leads to its network.
    ///
    /// # Errors
    ///
    /// If it cannot be started or spoken to.
    pub fn start(mut program: Program, setup: &Setup, log: File) -> Result<Self> {
        let mut child = program
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .map_err(Trouble::doing("starting a node"))?;
        let stdout = BufReader::new(child.stdout.take().expect("piped"));
        let stdin = child.stdin.take();
        let heard = Arc::new(Mutex::new(Heard::default()));
        let mut process = Self { child, stdin, heard: Arc::clone(&heard) };
        thread::spawn(move || {
            for line in stdout.lines().map_while(std::result::Result::ok) {
                let report = serde_json::from_str(&line)
                    .unwrap_or_else(|_| Report::Failed { reason: format!("it said `{line}`") });
                let mut heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
                match report {
                    Report::Status { leader, term } => heard.status = Some((leader, term)),
                    Report::Failed { reason } => heard.failed = Some(reason),
                    answer => heard.answers.push_back(answer),
                }
            }
        });
        let setup = serde_json::to_string(setup).expect("plain data");
        process.write(&setup)?;
        Ok(process)
    }

    /// Sends a command.
    ///
    /// # Errors
    ///
    /// If the process is gone.
    pub fn send(&mut self, command: &Command) -> Result<()> {
        let line = serde_json::to_string(command).expect("a command is plain data");
        self.write(&line)
    }

    /// Sends a signal.
    ///
    /// # Errors
    ///
    /// If the system refuses.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(self.child.id() as i32);
        kill(pid, signal).map_err(Trouble::doing("sending a signal"))
    }

    /// Kills the process and reaps it. What it wrote is there.
    ///
    /// # Errors
    ///
    /// If the system refuses.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill().map_err(Trouble::doing("killing a node"))?;
        self.child.wait().map(|_| ()).map_err(Trouble::doing("reaping a node"))
    }

    /// The leader that it last said it follows, and its term.
    pub fn status(&self) -> Option<(Option<usize>, u64)> {
        self.lock().status
    }

    /// Its oldest answer that nobody took yet.
    ///
    /// # Errors
    ///
    /// If it said that it cannot go on, or is gone without a word.
    pub fn answer(&mut self) -> Result<Option<Report>> {
        let ended = self.check();
        match self.lock().answers.pop_front() {
            Some(answer) => Ok(Some(answer)),
            None => ended.map(|()| None),
        }
    }

    /// Looks after it.
    ///
    /// # Errors
    ///
    /// As [`Process::answer`].
    pub fn check(&mut self) -> Result<()> {
        let ended = self.child.try_wait().map_err(Trouble::doing("looking after a node"))?;
        match (&self.lock().failed, ended) {
            (Some(reason), _) => Err(Trouble::new(reason)),
            (None, Some(status)) => Err(Trouble::new(format!("it ended: {status}"))),
            (None, None) => Ok(()),
        }
    }

    fn write(&mut self, line: &str) -> Result<()> {
        let stdin = self.stdin.as_mut().expect("open until dropped");
        writeln!(stdin, "{line}").map_err(Trouble::doing("speaking to a node"))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail if it is reaped already, and then there is nothing to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
