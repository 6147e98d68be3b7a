//! The delivery thread: it calls the user's callbacks, so that they can never slow the listener.
//!
//! Events wait in a bounded queue. When it is full the oldest goes, and the callback is told how
//! many it missed. The newest question to the quorum callback waits apart: it is never dropped, a
//! newer one replaces it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use parking_lot::Mutex;
use tracing::error;

use crate::event::{NodeInfo, NotifyCallback, QuorumCallback};
use crate::replica::ClusterEvent;

/// How many events may wait.
const QUEUE: usize = 1_024;

/// Something for the delivery thread.
enum Job {
    /// An event and the node it is about, or this one.
    Notify(ClusterEvent, NodeInfo),
    /// Look at the question.
    Ask,
}

/// What the listener and the delivery thread share.
#[derive(Default)]
struct Board {
    /// Events dropped since the last one delivered.
    dropped: AtomicU64,
    /// Callbacks that panicked.
    panics: AtomicU64,
    question: Mutex<Option<(u64, Vec<NodeInfo>)>>,
}

/// The listener's end of the delivery thread. The thread ends when this is dropped and what waits
/// is delivered.
pub(super) struct Delivery {
    jobs: Sender<Job>,
    /// The same queue's other end, to drop the oldest.
    oldest: Receiver<Job>,
    board: Arc<Board>,
}

/// What the thread needs.
pub(super) struct Callbacks {
    pub(super) own: NodeInfo,
    pub(super) notify: Option<NotifyCallback>,
    pub(super) quorum: Option<QuorumCallback>,
}

impl Delivery {
    /// Starts the thread. `verdict` is called on it with the number of a question and its answer.
    pub(super) fn start(
        callbacks: Callbacks,
        verdict: impl Fn(u64, bool) + Send + 'static,
    ) -> std::io::Result<Self> {
        let (jobs, queue) = bounded(QUEUE);
        let board = Arc::new(Board::default());
        let delivery = Self { jobs, oldest: queue.clone(), board: Arc::clone(&board) };
        let run = move || {
            for job in &queue {
                let question = board.question.lock().take();
                let answer = question.and_then(|(round, neighbours)| {
                    callbacks.ask(&board, &neighbours).map(|allowed| (round, allowed))
                });
                if let Some((round, allowed)) = answer {
                    verdict(round, allowed);
                }
                if let Job::Notify(event, about) = job {
                    callbacks.deliver(&board, &event, &about);
                }
            }
        };
        thread::Builder::new().name("quorate-delivery".into()).spawn(run)?;
        Ok(delivery)
    }

    /// Queues an event. Never blocks.
    pub(super) fn notify(&self, event: ClusterEvent, about: NodeInfo) {
        self.push(Job::Notify(event, about));
    }

    /// Asks the quorum callback; a question not yet begun is replaced. Never blocks.
    pub(super) fn ask(&self, round: u64, neighbours: Vec<NodeInfo>) {
        *self.board.question.lock() = Some((round, neighbours));
        self.push(Job::Ask);
    }

    /// How many callbacks panicked so far.
    pub(super) fn panics(&self) -> u64 {
        self.board.panics.load(Ordering::Relaxed)
    }

    fn push(&self, mut job: Job) {
        while let Err(error) = self.jobs.try_send(job) {
            let TrySendError::Full(back) = error else { return };
            job = back;
            if let Ok(Job::Notify(..)) = self.oldest.try_recv() {
                self.board.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

impl Callbacks {
    fn deliver(&self, board: &Board, event: &ClusterEvent, about: &NodeInfo) {
        let Some(NotifyCallback(notify)) = &self.notify else { return };
        let call = |event: &ClusterEvent, info: &NodeInfo| {
            if catch_unwind(AssertUnwindSafe(|| notify(event, info))).is_err() {
                board.panics.fetch_add(1, Ordering::Relaxed);
                error!(?event, "the notify callback panicked; the node goes on");
            }
        };
        let dropped = board.dropped.swap(0, Ordering::Relaxed);
        if dropped > 0 {
            call(&ClusterEvent::Lagged { dropped }, &self.own);
        }
        call(event, about);
    }

    /// The answer; `None` if there is none, because nobody is asked or the callback panicked.
    fn ask(&self, board: &Board, neighbours: &[NodeInfo]) -> Option<bool> {
        let QuorumCallback(quorum) = self.quorum.as_ref()?;
        let answer = catch_unwind(AssertUnwindSafe(|| quorum(neighbours))).ok();
        if answer.is_none() {
            board.panics.fetch_add(1, Ordering::Relaxed);
            error!("the quorum callback panicked; its last verdict stands");
        }
        answer
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use quorate_consensus::NodeId;
    use std::sync::mpsc;

    fn info(node: u32) -> NodeInfo {
        NodeInfo { node_id: NodeId(node), addr: String::new(), qrank: 1 }
    }

    fn callbacks() -> Callbacks {
        Callbacks { own: info(0), notify: None, quorum: None }
    }

    #[test]
    fn a_slow_callback_misses_the_oldest_events_and_is_told_how_many() {
        let (gate, opened) = mpsc::channel::<()>();
        let (heard, hear) = mpsc::channel();
        let opened = Mutex::new(opened);
        let mut callbacks = callbacks();
        callbacks.notify =
            Some(NotifyCallback(Arc::new(move |event: &ClusterEvent, about: &NodeInfo| {
                assert_eq!(about.node_id, event.node().unwrap_or(NodeId(0)));
                let _ = opened.lock().recv();
                heard.send(event.clone()).unwrap();
            })));
        let delivery = Delivery::start(callbacks, |_, _| {}).unwrap();
        let sent = QUEUE as u64 + 100;
        for done_bytes in 0..sent {
            let node = NodeId(1);
            let event = ClusterEvent::StateTransfer { node, done_bytes, total_bytes: sent };
            delivery.notify(event, info(1));
        }
        drop(delivery);
        drop(gate);
        let events: Vec<ClusterEvent> = hear.iter().collect();
        let mut missed = 0;
        let mut seen = 0;
        for event in &events {
            match event {
                ClusterEvent::Lagged { dropped } => missed += dropped,
                _ => seen += 1,
            }
        }
        assert_eq!(missed + seen, sent);
        assert!(missed >= 99, "{missed} missed");
        let last = ClusterEvent::StateTransfer {
            node: NodeId(1),
            done_bytes: sent - 1,
            total_bytes: sent,
        };
        assert_eq!(events.last(), Some(&last));
    }

    #[test]
    fn a_panicking_callback_is_counted_and_the_next_is_called() {
        let (heard, hear) = mpsc::channel();
        let (answers, answer) = mpsc::channel();
        let mut callbacks = callbacks();
        callbacks.notify =
            Some(NotifyCallback(Arc::new(move |event: &ClusterEvent, _: &NodeInfo| {
                assert!(*event != ClusterEvent::Joining, "planted");
                heard.send(event.clone()).unwrap();
            })));
        callbacks.quorum = Some(QuorumCallback(Arc::new(|neighbours: &[NodeInfo]| {
            assert!(!neighbours.is_empty(), "planted");
            neighbours.len() > 1
        })));
        let verdict = move |round, allowed| answers.send((round, allowed)).unwrap();
        let delivery = Delivery::start(callbacks, verdict).unwrap();
        delivery.notify(ClusterEvent::Joining, info(0));
        delivery.notify(ClusterEvent::Formed, info(0));
        assert_eq!(hear.recv().unwrap(), ClusterEvent::Formed);
        assert_eq!(delivery.panics(), 1);
        delivery.ask(1, Vec::new());
        delivery.notify(ClusterEvent::Formed, info(0));
        assert_eq!(hear.recv().unwrap(), ClusterEvent::Formed);
        assert_eq!(delivery.panics(), 2);
        delivery.ask(2, vec![info(0)]);
        assert_eq!(answer.recv().unwrap(), (2, false));
    }
}
