//! Transactions: reading a snapshot through one's own writes, and committing them.
//!
//! ```text
//!   reads  --> Overlay (own writes) over Root (the snapshot, immutable)
//!   writes --> Overlay
//!   commit --> Draft --> write set bytes --> commit path
//! ```
//!
//! Nothing a transaction does before its commit touches anything shared. A serializable one notes
//! what it reads; one on a snapshot only does not. The overlay is kept behind a `RefCell`, so that
//! cursors can stay open while the transaction writes; no borrow outlives a call.

mod add;
mod batch;
mod commit;
mod cursor;
mod handle;
mod overlay;
mod read;
mod record;
mod typed;
mod write;

use std::cell::RefCell;
use std::sync::Arc;

use quorate_schema::{ClassDef, Dictionary, IndexDef};

pub use batch::{Batch, Failed, panic_message};
pub use commit::Committed;
pub use cursor::{Cursor, Rows};
pub use handle::CommitHandle;
pub use read::Scan;
pub use record::Record;

use crate::clock::Age;
use crate::database::Shared;
use crate::names::nearest;
use crate::store::Root;
use crate::write_set::Kind;
use crate::{Access, Error, Index, Isolation, ReadSet};
use overlay::Overlay;

/// One transaction. Dropping it rolls it back.
///
/// It reads the state that was visible when it began, with its own writes in it. An operation that
/// fails changes nothing, and the transaction goes on.
///
/// Records are accessed by name and [`Value`](quorate_schema::Value) (`insert_values`,
/// `update_fields`, `record`, `find_record`), or as Rust types that derive
/// [`Class`](quorate_schema::Class) (`insert`, `update`, `get`, `find`); cursors walk any index.
pub struct Transaction<'c> {
    shared: &'c Arc<Shared>,
    root: Arc<Root>,
    access: Access,
    isolation: Isolation,
    persistence: Persistence,
    /// None if it may take as long as it wants.
    age: Option<Age>,
    state: RefCell<State>,
}

/// Which try this is, of a `transact` that lost before.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Persistence {
    /// How often it lost.
    pub(crate) attempts: u16,
    /// Its number in this process; 0 if it never lost.
    pub(crate) series: u64,
}

/// What changes while a transaction runs.
#[derive(Debug, Default)]
struct State {
    overlay: Overlay,
    /// Of replicated classes.
    reads: ReadSet,
    local_reads: ReadSet,
}

impl<'c> Transaction<'c> {
    pub(crate) fn new(
        shared: &'c Arc<Shared>,
        access: Access,
        isolation: Isolation,
    ) -> Transaction<'c> {
        let root = shared.visible.load_full();
        let age = match access {
            Access::ReadOnly => None,
            Access::ReadWrite => Age::limited(shared.params.transaction_limit_ms),
        };
        let (persistence, state) = (Persistence::default(), RefCell::default());
        Transaction { shared, root, access, isolation, persistence, age, state }
    }

    /// Tells whoever certifies how often this was tried before.
    pub(crate) fn persist(&mut self, persistence: Persistence) {
        self.persistence = persistence;
    }

    /// The index it reads at.
    pub fn snapshot(&self) -> Index {
        self.root.index
    }

    /// What it may do.
    pub fn access(&self) -> Access {
        self.access
    }

    /// Against what it is protected.
    pub fn isolation(&self) -> Isolation {
        self.isolation
    }

    /// What the database holds.
    pub fn dictionary(&self) -> &'c Dictionary {
        &self.shared.dictionary
    }

    /// From now on writes of local classes are refused with [`Error::MixedTransaction`], also the
    /// first one.
    pub fn write_replicated_only(&self) {
        self.state.borrow_mut().overlay.only = Some(Kind::Replicated);
    }

    /// Ends it without a trace; as dropping it does.
    pub fn rollback(self) {}

    fn class(&self, name: &str) -> Result<&'c ClassDef, Error> {
        let dictionary = self.dictionary();
        dictionary.class_by_name(name).ok_or_else(|| {
            let known = dictionary.classes().iter().map(|class| class.name.as_str());
            let hint = nearest(name, known).map(str::to_owned);
            Error::UnknownClass { name: name.to_owned(), hint }
        })
    }

    fn index(&self, class: &'c ClassDef, name: &str) -> Result<&'c IndexDef, Error> {
        class.index(name).ok_or_else(|| {
            let known = class.indexes.iter().map(|index| index.name.as_str());
            let hint = nearest(name, known).map(str::to_owned);
            Error::UnknownIndex { class: class.name.clone(), name: name.to_owned(), hint }
        })
    }

    /// True if what is read is certified, and so must be noted.
    fn is_certified(&self) -> bool {
        self.isolation == Isolation::Serializable && self.access == Access::ReadWrite
    }
}

impl State {
    /// The read set that reads of `class` go to.
    fn reads_of(&mut self, class: &ClassDef) -> &mut ReadSet {
        if class.local { &mut self.local_reads } else { &mut self.reads }
    }
}

/// The kind of write set that writes of `class` go to.
fn kind_of(class: &ClassDef) -> Kind {
    if class.local { Kind::Local } else { Kind::Replicated }
}

impl std::fmt::Debug for Transaction<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transaction")
            .field("snapshot", &self.snapshot())
            .field("access", &self.access)
            .field("isolation", &self.isolation)
            .finish_non_exhaustive()
    }
}
