//! A cluster of replicas in one thread, with a network that a test holds in its hands: it says
//! which messages wait, and when time passes. No socket, no clock, no chance.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use quorate_cluster::replica::{Input, Output, PeerMessage, Replica, ReplicaSettings};
use quorate_cluster::{
    AdminAnswer, AdminRequest, CallBatch, CallError, CallRequest, CallResult, Clock, ClusterError,
    ClusterEvent, FreshError, Freshness, NodeInfo, OutcomeError, Procedures,
};
use quorate_consensus::{Identity, Role, Settings};
use quorate_engine::{
    Access, Acknowledged, BeginError, CommitError, CommitOptions, CommitPath, CommitTicket,
    Connection, Database, DatabaseParams, Index, Isolation, Outcome, Submission, TransactionId,
};
use quorate_schema::{Dictionary, Value};

/// A commit path that keeps the submission instead of waiting for its outcome.
#[derive(Default)]
struct Capture {
    origin: Mutex<u128>,
    sequence: AtomicU64,
    taken: Mutex<Option<Submission>>,
}

impl CommitPath for Capture {
    fn admit(&self, _: Access) -> Result<(), BeginError> {
        Ok(())
    }

    fn submit(
        &self,
        submission: Submission,
        _: CommitOptions,
    ) -> Result<Arc<dyn CommitTicket>, CommitError> {
        let id = submission.id;
        *self.taken.lock().unwrap() = Some(submission);
        Err(CommitError::InDoubt(id))
    }

    fn next_id(&self) -> (TransactionId, u64) {
        let sequence = self.sequence.fetch_add(1, Ordering::Relaxed) + 1;
        (TransactionId { origin: *self.origin.lock().unwrap(), sequence }, 1)
    }
}

/// One node and what it said.
pub struct MiniNode {
    pub identity: Identity,
    pub replica: Replica,
    pub database: Database,
    connection: Connection,
    path: Arc<Capture>,
    /// What became of its transactions.
    pub completed: BTreeMap<TransactionId, Result<Acknowledged, CommitError>>,
    /// What it said of the outcomes it was asked for, by the question's sequence.
    pub outcomes: BTreeMap<u64, Result<Outcome, OutcomeError>>,
    /// Which of its transactions wait for other nodes only, or did.
    pub through: Vec<TransactionId>,
    /// What became of those in doubt.
    pub settled: BTreeMap<TransactionId, Option<Index>>,
    /// What its readers heard, by token.
    pub fresh: BTreeMap<u64, Result<Index, FreshError>>,
    pub events: Vec<ClusterEvent>,
    /// What operators heard, by token.
    pub answers: BTreeMap<u64, AdminAnswer>,
    /// The nodes it was last told to look for.
    pub listed: Vec<Option<NodeInfo>>,
    /// Its procedures, and the clock they are told.
    pub procedures: Procedures,
    pub clock_ms: u64,
    /// Batches it wants run, while they are held.
    pub batches: VecDeque<CallBatch>,
    /// What its callers heard.
    pub called: BTreeMap<TransactionId, Result<CallResult, CallError>>,
    /// How it ended.
    pub finished: Option<Result<(), ClusterError>>,
    next_token: u64,
}

/// A message on its way.
struct Flying {
    from: usize,
    to: usize,
    message: PeerMessage,
}

/// Which messages wait: from, to, message.
type Hold = Box<dyn Fn(usize, usize, &PeerMessage) -> bool>;

/// See the module.
pub struct Mini {
    pub nodes: Vec<MiniNode>,
    flying: VecDeque<Flying>,
    hold: Option<Hold>,
    /// Batches wait until they are run one by one.
    pub hold_batches: bool,
    now: u64,
    outputs: Vec<Output>,
}

/// Settings of node `id` of a cluster with these ranks.
pub fn settings(id: u32, ranks: &[u32]) -> ReplicaSettings {
    ReplicaSettings {
        identity: Identity::new(id, u128::from(id) + 100),
        ranks: ranks.to_vec(),
        addresses: (0..ranks.len()).map(|node| format!("node-{node}:1")).collect(),
        core: Settings::default(),
        window_bytes: 1 << 16,
        window_transactions: 100,
        window_timeout_ms: 0,
        commit_limit_ms: 5_000,
        silence_ms: 3_000,
        stop_limit_ms: 5_000,
        departed_after_ms: 1_000,
        image_piece_bytes: 1 << 16,
        image_piece_objects: 1_000,
        image_rate_bytes_per_s: 0,
        log_keep_bytes: 1 << 20,
        #[cfg(feature = "planted-bugs")]
        bug: None,
    }
}

impl MiniNode {
    fn new(settings: ReplicaSettings) -> Self {
        let ddl = "declare database mini;
            class Fact { string name; unique hash<name> by_name; };";
        let dictionary = Dictionary::parse(ddl).unwrap();
        let identity = settings.identity;
        let origin = Mutex::new(identity.incarnation.0);
        let path = Arc::new(Capture { origin, ..Capture::default() });
        let params = DatabaseParams::default();
        let database =
            Database::open_with("mini", dictionary.clone(), params, path.clone()).unwrap();
        let connection = database.connect().unwrap();
        let replica = Replica::new(settings, database.applier(), Arc::new(dictionary), 77, 0);
        Self {
            identity,
            replica,
            database,
            connection,
            path,
            completed: BTreeMap::new(),
            outcomes: BTreeMap::new(),
            through: Vec::new(),
            settled: BTreeMap::new(),
            fresh: BTreeMap::new(),
            events: Vec::new(),
            answers: BTreeMap::new(),
            listed: Vec::new(),
            procedures: Procedures::default(),
            clock_ms: 1_000,
            batches: VecDeque::new(),
            called: BTreeMap::new(),
            finished: None,
            next_token: 0,
        }
    }

    /// Whether this node holds a fact.
    pub fn knows(&self, name: &str) -> bool {
        let mut connection = self.database.connect().unwrap();
        let tx = connection.begin(Access::ReadOnly, Isolation::Snapshot).unwrap();
        tx.find_record("Fact", "by_name", &[Value::Text(name.into())]).unwrap().is_some()
    }
}

impl Mini {
    /// Nodes that are linked to each other, have formed, and have a leader.
    pub fn start(ranks: &[u32]) -> Self {
        Self::start_with(ranks, |_| {})
    }

    pub fn start_with(ranks: &[u32], tweak: impl Fn(&mut ReplicaSettings)) -> Self {
        let node = |id: usize| {
            let mut settings = settings(id as u32, ranks);
            tweak(&mut settings);
            MiniNode::new(settings)
        };
        let nodes = (0..ranks.len()).map(node).collect();
        let mut mini = Self {
            nodes,
            flying: VecDeque::new(),
            hold: None,
            hold_batches: false,
            now: 0,
            outputs: Vec::new(),
        };
        for a in 0..ranks.len() {
            for b in 0..a {
                mini.link(a, b);
            }
        }
        mini.run_until("a leader", |mini| mini.leader().is_some());
        mini.run(200);
        mini
    }

    pub fn link(&mut self, a: usize, b: usize) {
        for (this, that) in [(a, b), (b, a)] {
            let peer = self.nodes[that].identity;
            self.step(this, Input::PeerUp { peer });
        }
    }

    /// Breaks a link; what was on it is lost.
    pub fn cut(&mut self, a: usize, b: usize) {
        self.flying.retain(|flying| ![(a, b), (b, a)].contains(&(flying.from, flying.to)));
        for (this, that) in [(a, b), (b, a)] {
            let peer = self.nodes[that].identity;
            self.step(this, Input::PeerDown { peer });
        }
    }

    /// Starts a process under this id: the next one, or that of one that is replaced. It is not
    /// linked to anybody.
    pub fn boot(&mut self, settings: ReplicaSettings) {
        let id = settings.identity.node.0 as usize;
        self.flying.retain(|flying| flying.from != id && flying.to != id);
        let node = MiniNode::new(settings);
        if id == self.nodes.len() {
            self.nodes.push(node);
            return;
        }
        let old = std::mem::replace(&mut self.nodes[id], node).identity;
        for other in (0..self.nodes.len()).filter(|other| *other != id) {
            self.step(other, Input::PeerDown { peer: old });
        }
    }

    /// An operator asks a node; names its answer.
    pub fn operate(&mut self, node: usize, request: AdminRequest) -> u64 {
        self.nodes[node].next_token += 1;
        let token = self.nodes[node].next_token;
        let (id, low_water) = self.nodes[node].path.next_id();
        let random = token + 1_000;
        self.step(node, Input::Admin { token, request, id, low_water, random });
        token
    }

    /// An operator asks a node and waits for the answer.
    pub fn operate_now(&mut self, node: usize, request: AdminRequest) -> AdminAnswer {
        let token = self.operate(node, request);
        self.run_until("an answer", |mini| mini.nodes[node].answers.contains_key(&token));
        self.nodes[node].answers[&token].clone()
    }

    /// From now on these messages wait, but for those that no longer do.
    pub fn hold(&mut self, hold: impl Fn(usize, usize, &PeerMessage) -> bool + 'static) {
        self.hold = Some(Box::new(hold));
    }

    /// Nothing waits any more.
    pub fn release(&mut self) {
        self.hold = None;
    }

    /// The leader of the newest term that is up to date and followed by itself.
    pub fn leader(&self) -> Option<usize> {
        let leads =
            |node: &&MiniNode| node.replica.core().is_some_and(|core| core.role() == Role::Leader);
        let newest = self
            .nodes
            .iter()
            .filter(leads)
            .max_by_key(|node| node.replica.core().map(|core| core.term()))?;
        let core = newest.replica.core()?;
        core.has_committed_in_term().then_some(newest.identity.node.0 as usize)
    }

    /// What time it is, ms.
    pub fn now(&self) -> u64 {
        self.now
    }

    /// Runs for so many ms.
    pub fn run(&mut self, ms: u64) {
        let all: Vec<usize> = (0..self.nodes.len()).collect();
        self.run_only(&all, ms);
    }

    /// As `run`, but time stands still for the others: they are paused.
    pub fn run_only(&mut self, nodes: &[usize], ms: u64) {
        for _ in 0..ms {
            self.now += 1;
            for &node in nodes {
                if self.nodes[node].replica.next_wakeup() <= self.now {
                    let random = self.now.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ node as u64;
                    self.step(node, Input::Tick { random });
                }
            }
            self.settle();
        }
    }

    /// Runs until it is so.
    pub fn run_until(&mut self, what: &str, is_so: impl Fn(&Mini) -> bool) {
        for _ in 0..20_000 {
            if is_so(self) {
                return;
            }
            self.run(1);
        }
        panic!("in vain: {what}");
    }

    /// Delivers whatever does not wait, until nothing is left. No time passes.
    pub fn settle(&mut self) {
        for node in 0..self.nodes.len() {
            self.step(node, Input::Flush);
        }
        loop {
            let hold = self.hold.take();
            let waits = |flying: &Flying| {
                hold.as_ref().is_some_and(|hold| hold(flying.from, flying.to, &flying.message))
            };
            let next = self.flying.iter().position(|flying| !waits(flying));
            self.hold = hold;
            let Some(next) = next else { return };
            let Flying { from, to, message } = self.flying.remove(next).unwrap();
            let from = self.nodes[from].identity;
            self.step(to, Input::Receive { from, message });
            self.step(to, Input::Flush);
        }
    }

    /// A transaction that writes a fact begins its way.
    pub fn submit(&mut self, node: usize, name: &str) -> TransactionId {
        self.submit_with(node, name, CommitOptions::default())
    }

    pub fn submit_with(
        &mut self,
        node: usize,
        name: &str,
        options: CommitOptions,
    ) -> TransactionId {
        let submission = self.prepare(node, name);
        let id = submission.id;
        self.step(node, Input::Submit(submission, options));
        id
    }

    /// Somebody at `node` asks what became of a transaction; names the question.
    pub fn ask_outcome(&mut self, node: usize, wanted: TransactionId, limit_ms: u64) -> u64 {
        let (id, _) = self.nodes[node].path.next_id();
        self.step(node, Input::Outcome { id, wanted, limit_ms });
        id.sequence
    }

    /// Somebody at `node` calls a procedure.
    pub fn call(&mut self, node: usize, name: &str, args: &[u8]) -> TransactionId {
        let (id, low_water) = self.nodes[node].path.next_id();
        let (name, args) = (name.to_owned(), args.to_vec());
        let request = Arc::new(CallRequest { low_water, run_limit_ms: 1_000, name, args });
        self.step(node, Input::Call { id, request, limit_ms: None });
        id
    }

    /// What became of a call, in whatever time it takes.
    pub fn called(&mut self, node: usize, id: TransactionId) -> Result<CallResult, CallError> {
        self.run_until("a call", |mini| mini.nodes[node].called.contains_key(&id));
        self.nodes[node].called[&id].clone()
    }

    /// Runs the oldest batch that waits at `node`, if one does.
    pub fn run_batch(&mut self, node: usize) -> bool {
        let this = &mut self.nodes[node];
        let Some(batch) = this.batches.pop_front() else { return false };
        let clock = Clock { unix_ms: this.clock_ms, elapsed: &|| std::time::Duration::ZERO };
        let ran = this.procedures.run(&this.database.applier(), &batch, clock);
        self.step(node, Input::Ran(ran));
        true
    }

    /// What became of a transaction, in whatever time it takes to know.
    pub fn outcome(&mut self, node: usize, wanted: TransactionId) -> Outcome {
        let question = self.ask_outcome(node, wanted, 10_000);
        self.run_until("the outcome", |mini| mini.nodes[node].outcomes.contains_key(&question));
        self.nodes[node].outcomes[&question].clone().unwrap()
    }

    /// The submission of a transaction that writes a fact.
    pub fn prepare(&mut self, node: usize, name: &str) -> Submission {
        let MiniNode { connection, path, .. } = &mut self.nodes[node];
        let tx = connection.begin(Access::ReadWrite, Isolation::Snapshot).unwrap();
        tx.insert_values("Fact", &[("name", Value::Text(name.into()))]).unwrap();
        let _ = tx.commit();
        path.taken.lock().unwrap().take().unwrap()
    }

    /// Commits a fact, in whatever time it takes.
    pub fn commit(&mut self, node: usize, name: &str) -> Index {
        let id = self.submit(node, name);
        self.run_until(name, |mini| mini.nodes[node].completed.contains_key(&id));
        self.nodes[node].completed[&id].clone().unwrap().index
    }

    /// A reader begins to wait; its token.
    pub fn ask(&mut self, node: usize, freshness: Freshness, limit_ms: u64) -> u64 {
        self.nodes[node].next_token += 1;
        let token = self.nodes[node].next_token;
        self.step(node, Input::Fresh { token, freshness, limit_ms });
        token
    }

    /// Gives a node an input and takes what comes out.
    pub fn step(&mut self, node: usize, input: Input) {
        let mut outputs = std::mem::take(&mut self.outputs);
        self.nodes[node].replica.step(self.now, input, &mut outputs);
        for output in outputs.drain(..) {
            let this = &mut self.nodes[node];
            match output {
                Output::Send { to, message } => {
                    let to = to.node.0 as usize;
                    self.flying.push_back(Flying { from: node, to, message });
                }
                Output::Complete { id, result } => {
                    let before = this.completed.insert(id, result);
                    assert!(before.is_none(), "{id} was answered twice");
                }
                Output::Outcome { id, result } => {
                    let before = this.outcomes.insert(id.sequence, result);
                    assert!(before.is_none(), "question {id} was answered twice");
                }
                Output::Called { id, result } => {
                    let before = this.called.insert(id, result);
                    assert!(before.is_none(), "call {id} was answered twice");
                }
                Output::Run(batch) => this.batches.push_back(batch),
                Output::Through { id } => this.through.push(id),
                Output::Settled { id, committed } => {
                    let before = this.settled.insert(id, committed);
                    assert!(before.is_none(), "{id} was settled twice");
                }
                Output::Fresh { token, result } => {
                    let before = this.fresh.insert(token, result);
                    assert!(before.is_none(), "reader {token} was answered twice");
                }
                Output::Event(event) => this.events.push(event),
                Output::Nodes(nodes) => this.listed = nodes,
                Output::Finished(result) => this.finished = Some(result),
                Output::AdminAnswer { token, answer } => {
                    let before = this.answers.insert(token, answer);
                    assert!(before.is_none(), "operator {token} was answered twice");
                }
                Output::Reborn { identity } => {
                    this.identity = identity;
                    *this.path.origin.lock().unwrap() = identity.incarnation.0;
                }
                _ => {}
            }
        }
        self.outputs = outputs;
        while !self.hold_batches && self.run_batch(node) {}
    }
}
