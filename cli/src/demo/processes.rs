//! The node processes: started, spoken to, killed, waited for. None outlives the demo.
//!
//! Three things see to that. Dropping [`Processes`] (at the end, on an error, in a panic) kills
//! and reaps what still runs. A node ends when its standard input closes, which covers a demo that
//! was itself killed. And all waiting here has a limit.

use std::collections::VecDeque;
use std::io::{self, BufRead as _, BufReader, Read, Write as _};
use std::process::{Child, ChildStdin, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::protocol::{Command, Report};

/// How much of a node's standard error is kept, in lines.
const STDERR_LINES: usize = 40;

const WAIT_STEP: Duration = Duration::from_millis(2);

/// Something a node's process did.
#[derive(Debug)]
pub(crate) struct Event {
    /// The node.
    pub(crate) node: u32,
    /// Which of its processes.
    pub(crate) life: u32,
    /// What it did.
    pub(crate) what: EventKind,
}

/// What a process did.
#[derive(Debug)]
pub(crate) enum EventKind {
    /// It reported.
    Report(Report),
    /// It wrote a line that is no report.
    Garbage(String),
    /// Its standard output ended: it is gone or about to be. Nothing follows from this life.
    Closed,
}

/// All node processes.
pub(crate) struct Processes {
    nodes: Vec<Option<Process>>,
    sender: Sender<Event>,
    receiver: Receiver<Event>,
}

struct Process {
    child: Child,
    /// Closed on drop, which asks the process to end.
    stdin: ChildStdin,
    stderr: Arc<Mutex<VecDeque<String>>>,
    stderr_reader: Option<JoinHandle<()>>,
}

impl Processes {
    /// Room for this many nodes; none runs yet.
    pub(crate) fn new(nodes: u32) -> Self {
        let (sender, receiver) = channel();
        Self { nodes: (0..nodes).map(|_| None).collect(), sender, receiver }
    }

    /// Starts a node's process, which waits for its first command. An earlier process of the node
    /// is killed and reaped first.
    pub(crate) fn spawn(&mut self, node: u32, life: u32) -> io::Result<()> {
        self.nodes[node as usize] = None;
        let mut child = std::process::Command::new(std::env::current_exe()?)
            .arg("internal-node")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let stdin = child.stdin.take().expect("piped above");
        let stdout = child.stdout.take().expect("piped above");
        let stderr_pipe = child.stderr.take().expect("piped above");
        let stderr = Arc::default();
        let kept = Arc::clone(&stderr);
        let stderr_reader = Some(thread::spawn(move || keep_tail(stderr_pipe, &kept)));
        let sender = self.sender.clone();
        thread::spawn(move || read_reports(stdout, node, life, &sender));
        self.nodes[node as usize] = Some(Process { child, stdin, stderr, stderr_reader });
        Ok(())
    }

    /// Sends a command. A node that is gone shows as [`EventKind::Closed`], not here.
    pub(crate) fn send(&mut self, node: u32, command: &Command) {
        if let Some(process) = &mut self.nodes[node as usize] {
            let mut line = serde_json::to_string(command).expect("a command is plain data");
            line.push('\n');
            let _ = process.stdin.write_all(line.as_bytes()).and_then(|()| process.stdin.flush());
        }
    }

    /// Kills a node's process with SIGKILL. Reap it with [`Processes::wait`].
    pub(crate) fn kill(&mut self, node: u32) -> io::Result<()> {
        match &mut self.nodes[node as usize] {
            Some(process) => process.child.kill(),
            None => Ok(()),
        }
    }

    /// Waits for the end of a node's process at most so long; `None` if it goes on.
    pub(crate) fn wait(&mut self, node: u32, limit: Duration) -> io::Result<Option<ExitStatus>> {
        let Some(process) = &mut self.nodes[node as usize] else { return Ok(None) };
        let start = Instant::now();
        loop {
            let status = process.child.try_wait()?;
            if status.is_some() || start.elapsed() >= limit {
                return Ok(status);
            }
            thread::sleep(WAIT_STEP);
        }
    }

    /// The last lines of a gone process's standard error.
    pub(crate) fn stderr(&mut self, node: u32) -> Vec<String> {
        let Some(process) = &mut self.nodes[node as usize] else { return Vec::new() };
        if let Some(reader) = process.stderr_reader.take_if(|reader| reader.is_finished()) {
            let _ = reader.join();
        }
        let lines = process.stderr.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().cloned().collect()
    }

    /// The next event, waited for at most so long.
    pub(crate) fn receive(&self, limit: Duration) -> Option<Event> {
        match self.receiver.recv_timeout(limit) {
            Ok(event) => Some(event),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => unreachable!("self holds a sender"),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // An error means that it is gone already; after SIGKILL waiting is short.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read_reports(stdout: impl Read, node: u32, life: u32, sender: &Sender<Event>) {
    let mut reader = BufReader::with_capacity(1 << 16, stdout);
    let mut line = String::new();
    loop {
        line.clear();
        let what = match reader.read_line(&mut line) {
            // A line cut short is one that a killed process did not finish: as if never written.
            Ok(length) if length > 0 && line.ends_with('\n') => {
                match serde_json::from_str(line.trim_end()) {
                    Ok(report) => EventKind::Report(report),
                    Err(_) => EventKind::Garbage(line.trim_end().to_owned()),
                }
            }
            Ok(_) | Err(_) => EventKind::Closed,
        };
        let closed = matches!(what, EventKind::Closed);
        if sender.send(Event { node, life, what }).is_err() || closed {
            return;
        }
    }
}

fn keep_tail(stderr: impl Read, kept: &Mutex<VecDeque<String>>) {
    for line in BufReader::new(stderr).split(b'\n') {
        let Ok(line) = line else { return };
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() == STDERR_LINES {
            kept.pop_front();
        }
        kept.push_back(String::from_utf8_lossy(&line).into_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_lines_are_reports_and_a_cut_one_is_none() {
        let (sender, receiver) = channel();
        let text = "{\"report\":\"ready\"}\nnonsense\n{\"report\":\"re";
        read_reports(text.as_bytes(), 2, 1, &sender);
        let events: Vec<EventKind> = receiver.try_iter().map(|event| event.what).collect();
        assert!(
            matches!(
                &events[..],
                [EventKind::Report(Report::Ready), EventKind::Garbage(line), EventKind::Closed]
                    if line == "nonsense"
            ),
            "{events:?}"
        );
    }

    #[test]
    fn only_the_tail_of_standard_error_is_kept() {
        let kept = Mutex::default();
        let text: String = (0..100).map(|line| format!("line {line}\n")).collect();
        keep_tail(text.as_bytes(), &kept);
        let kept = kept.into_inner().expect("not poisoned");
        assert_eq!(kept.len(), STDERR_LINES);
        assert_eq!(kept.back().map(String::as_str), Some("line 99"));
    }
}
