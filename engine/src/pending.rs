//! Numbers given to records of commits under way: from the applier to the waiting transaction.

use std::collections::HashMap;

use parking_lot::Mutex;

use crate::TransactionId;
use crate::store::Given;

/// The commits of this node that wait, with what the applier gave them.
///
/// Invariant: an id is here exactly from `expect` to `take`, so its size is bounded by the number
/// of commits that connections wait for and of commit handles that live.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    waiting: Mutex<HashMap<TransactionId, Option<Vec<Given>>>>,
}

impl Pending {
    pub(crate) fn expect(&self, id: TransactionId) {
        self.waiting.lock().insert(id, None);
    }

    /// Keeps `given` if a commit of this node waits for it.
    pub(crate) fn fill(&self, id: TransactionId, given: Vec<Given>) {
        if let Some(waiting) = self.waiting.lock().get_mut(&id) {
            *waiting = Some(given);
        }
    }

    /// What was given; nothing if the transaction came in an image.
    pub(crate) fn take(&self, id: TransactionId) -> Option<Vec<Given>> {
        self.waiting.lock().remove(&id).flatten()
    }
}
