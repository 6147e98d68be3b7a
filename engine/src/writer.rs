//! The writer: the one place where roots are made.
//!
//! It holds the *working* root, which may be ahead of the published one, and the certifier's base
//! that belongs to it. Whoever changes data does it here, under one lock: the applier with
//! replicated write sets in log order, clients with write sets of local classes.
//!
//! Invariants: `base.last() == working.index` and `local_base.last() == working.local_index`;
//! so a decision made under the lock holds for exactly the state it is applied to.

use std::sync::Arc;

use quorate_schema::Dictionary;
use quorate_schema::bytes::Malformed;

use crate::certify::{self, Base, Budget, History, Request};
use crate::store::{Given, Mistakes, Root};
use crate::write_set::WriteSet;
use crate::{
    DatabaseParams, Footprint, ImageError, Index, Isolation, Outcome, ReadSet, Refusal, Settled,
    Submission, Tail, TransactionId,
};

/// See the module.
#[derive(Debug)]
pub(crate) struct Writer {
    working: Arc<Root>,
    base: Base,
    local_base: Base,
    params: DatabaseParams,
}

/// A transaction on local classes that asks to be certified and applied.
#[derive(Debug)]
pub(crate) struct LocalSubmission {
    pub(crate) write_set: Arc<[u8]>,
    pub(crate) snapshot: Index,
    pub(crate) local_snapshot: Index,
    pub(crate) isolation: Isolation,
    pub(crate) reads: ReadSet,
    pub(crate) local_reads: ReadSet,
}

impl Writer {
    pub(crate) fn new(root: Arc<Root>, params: DatabaseParams) -> Writer {
        let base = Base::new(params.history_bytes);
        Writer { working: root, local_base: base.clone(), base, params }
    }

    /// The newest root, published or not.
    pub(crate) fn working(&self) -> &Arc<Root> {
        &self.working
    }

    pub(crate) fn certify(
        &self,
        tail: &Tail,
        submission: &Submission,
        footprint: &Footprint,
    ) -> Result<(), Refusal> {
        match self.known(tail, submission.id) {
            Outcome::Unknown => {}
            known => return Err(Refusal::Known(known)),
        }
        let Submission { snapshot, isolation, reads, .. } = submission;
        self.decide(tail, *snapshot, *isolation, footprint, reads)
    }

    /// What is applied says what became of `id`, else the tail does. In this order: a fence in the
    /// tail may stand behind the commit that is applied.
    pub(crate) fn known(&self, tail: &Tail, id: TransactionId) -> Outcome {
        match self.working.exactly_once.outcome(id) {
            Outcome::Unknown => tail.outcome(id),
            known => known,
        }
    }

    /// Certification without asking whether the transaction is known.
    pub(crate) fn decide(
        &self,
        tail: &Tail,
        snapshot: Index,
        isolation: Isolation,
        footprint: &Footprint,
        reads: &ReadSet,
    ) -> Result<(), Refusal> {
        let request = Request { snapshot, isolation, footprint, reads };
        let budget = Budget {
            used_bytes: self.working.used_bytes,
            allowed_bytes: self.params.allowed_bytes(),
        };
        #[cfg(feature = "planted-bugs")]
        return self.certify_wrongly(tail, request, budget);
        #[cfg(not(feature = "planted-bugs"))]
        certify::certify(&self.base, tail, request, budget)
    }

    /// Checks what a transaction on replicated classes read of local ones: at the time it asks,
    /// since no other node could check it later.
    pub(crate) fn check_local_reads(
        &self,
        local_snapshot: Index,
        reads: &ReadSet,
    ) -> Result<(), Refusal> {
        let tail = Tail::new(self.local_base.last().next());
        certify::check_reads(
            &self.local_base,
            &tail,
            local_snapshot,
            Isolation::Serializable,
            reads,
        )
    }

    /// Applies a decided write set at `index`. See [`Applier::apply`](crate::Applier::apply).
    pub(crate) fn apply(
        &mut self,
        dictionary: &Dictionary,
        index: Index,
        write_set: &WriteSet<'_>,
    ) -> Result<Vec<Given>, Malformed> {
        let mistakes = self.mistakes();
        let working = Arc::make_mut(&mut self.working);
        let given = working.apply(dictionary, index, write_set, mistakes)?;
        self.base.observe(index, &write_set.footprint(dictionary));
        Ok(given)
    }

    pub(crate) fn skip(&mut self, index: Index) {
        self.base.advance(index);
        Arc::make_mut(&mut self.working).index = index;
    }

    /// Goes on behind the next index from `least` at which a generation may end.
    pub(crate) fn jump(&mut self, least: Index) -> Index {
        let index = Index(least.0.next_multiple_of(certify::BOUNDARY));
        self.base.restart(index);
        Arc::make_mut(&mut self.working).index = index;
        index
    }

    pub(crate) fn note(&mut self, index: Index, id: TransactionId, low_water: u64) {
        self.skip(index);
        if !self.mistakes().outcomes_forgotten {
            Arc::make_mut(&mut self.working).exactly_once.observe(id, low_water, index);
        }
    }

    /// What else the item at `index`, which is applied, says.
    pub(crate) fn settle(&mut self, index: Index, settled: &[Settled]) {
        if self.mistakes().outcomes_forgotten {
            return;
        }
        let exactly_once = &mut Arc::make_mut(&mut self.working).exactly_once;
        settled.iter().for_each(|settled| exactly_once.settle_at(*settled, index));
    }

    pub(crate) fn fence(&mut self, index: Index, id: TransactionId) {
        self.skip(index);
        if !self.mistakes().outcomes_forgotten {
            Arc::make_mut(&mut self.working).exactly_once.fence(id, index);
        }
    }

    /// Certifies and applies a write set of local classes.
    pub(crate) fn commit_local(
        &mut self,
        dictionary: &Dictionary,
        submission: &LocalSubmission,
    ) -> Result<Vec<Given>, Refusal> {
        let write_set = WriteSet::decode_local(&submission.write_set, dictionary)
            .expect("this process encoded the write set a moment ago");
        let footprint = write_set.footprint(dictionary);
        let request = Request {
            snapshot: submission.local_snapshot,
            isolation: submission.isolation,
            footprint: &footprint,
            reads: &submission.local_reads,
        };
        let budget = Budget {
            used_bytes: self.working.used_local_bytes,
            allowed_bytes: self.params.allowed_local_bytes(),
        };
        let local_index = self.local_base.last().next();
        certify::certify(&self.local_base, &Tail::new(local_index), request, budget)?;
        self.check_replicated_reads(submission, &footprint)?;
        let given = Arc::make_mut(&mut self.working)
            .apply_local(dictionary, &write_set)
            .expect("what was certified under this lock fits the root");
        self.local_base.observe(local_index, &footprint);
        Ok(given)
    }

    /// What a transaction on local classes read of replicated ones, and the replicated targets of
    /// its references.
    fn check_replicated_reads(
        &self,
        submission: &LocalSubmission,
        footprint: &Footprint,
    ) -> Result<(), Refusal> {
        let tail = Tail::new(self.base.last().next());
        let LocalSubmission { snapshot, isolation, reads, .. } = submission;
        certify::check_reads(&self.base, &tail, *snapshot, *isolation, reads)?;
        let written = |point: &u64| self.base.written_after(*point, *snapshot);
        if footprint.dependencies.iter().any(written) {
            return Err(Refusal::Conflict);
        }
        Ok(())
    }

    /// The working root and its history: an image at one moment.
    pub(crate) fn pinned(&self) -> (Arc<Root>, History) {
        (Arc::clone(&self.working), self.base.history())
    }

    /// Goes on from `root` and `history`, with the local classes of now; gives the root until now.
    /// What was built is older than what is here: refused.
    pub(crate) fn install(
        &mut self,
        dictionary: &Dictionary,
        mut root: Root,
        history: History,
    ) -> Result<Arc<Root>, ImageError> {
        let old = &self.working;
        if root.index < old.index {
            return Err(ImageError::Older { image: root.index, applied: old.index });
        }
        for class in dictionary.classes().iter().filter(|class| class.local) {
            let class = class.id.0 as usize;
            root.classes[class] = Arc::clone(&old.classes[class]);
        }
        root.local_index = old.local_index;
        root.used_local_bytes = old.used_local_bytes;
        self.base = self.base.restored(history);
        assert_eq!(self.base.last(), root.index, "an image whose history ends elsewhere");
        Ok(std::mem::replace(&mut self.working, Arc::new(root)))
    }

    #[cfg(not(feature = "planted-bugs"))]
    fn mistakes(&self) -> Mistakes {
        Mistakes::default()
    }

    #[cfg(feature = "planted-bugs")]
    fn mistakes(&self) -> Mistakes {
        Mistakes {
            oldest_free_first: self.params.has_bug(crate::Bug::FreeListOrder),
            outcomes_forgotten: self.params.has_bug(crate::Bug::ExactlyOnceForgotten),
        }
    }

    /// Certification with the mistake the parameters ask for, if any.
    #[cfg(feature = "planted-bugs")]
    fn certify_wrongly(
        &self,
        tail: &Tail,
        request: Request<'_>,
        budget: Budget,
    ) -> Result<(), Refusal> {
        use crate::Bug;
        let empty = Tail::new(tail.next());
        let mut reads = request.reads.clone();
        let mut footprint = request.footprint.clone();
        let mut tail = tail;
        match self.params.bug {
            Some(Bug::CertifyIgnoresTail) => tail = &empty,
            Some(Bug::CertifyIgnoresReads) => reads = ReadSet::default(),
            Some(Bug::ReadSetRangeMissed) => reads.ranges.clear(),
            Some(Bug::WritesUnchecked) => footprint.points.clear(),
            Some(Bug::AddersUnchecked) => footprint.adders.clear(),
            Some(Bug::AddersForgotten) => {
                return certify::certify(
                    &self.base.without_adders(),
                    &tail.without_adders(),
                    request,
                    budget,
                );
            }
            _ => {}
        }
        let request = Request { footprint: &footprint, reads: &reads, ..request };
        certify::certify(&self.base, tail, request, budget)
    }
}
