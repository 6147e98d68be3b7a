//! Does a frame belong to the connection it arrived on?
//!
//! Bytes of an earlier connection can turn up on a later one between the same nodes (a proxy, a
//! reused port), and so can those of another cluster. Their checksums are right; what gives them
//! away is what every frame is stamped with.

use thiserror::Error;

use super::frame::Stamp;

/// Why a whole frame is not taken. The connection cannot be trusted any further and is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Misplaced {
    /// Its connection epoch is not the one agreed on in the handshake.
    #[error("a frame of another connection")]
    OtherConnection,
    /// Both sides belong to a cluster by now, and not to the same in the same epoch.
    #[error("a frame of another cluster")]
    OtherCluster,
}

impl Stamp {
    /// Checks the stamp of a frame that arrived. `ours` is what this side stamps on the same
    /// connection. Before the handshake is done (`open`) clusters are not compared: it compares
    /// them itself, and answers.
    ///
    /// # Errors
    ///
    /// [`Misplaced`]: the frame is not to be looked at.
    pub fn check(self, ours: Stamp, open: bool) -> Result<(), Misplaced> {
        if self.connection_epoch != ours.connection_epoch {
            return Err(Misplaced::OtherConnection);
        }
        let both = self.cluster_id != 0 && ours.cluster_id != 0;
        let same = self.cluster_id == ours.cluster_id && self.epoch == ours.epoch;
        if open && both && !same { Err(Misplaced::OtherCluster) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::epoch::Epoch;

    #[test]
    fn only_the_same_connection_and_cluster_will_do() {
        let epoch = Epoch { counter: 1, bits: 2 };
        let ours = Stamp { cluster_id: 3, epoch, connection_epoch: 4 };
        assert_eq!(ours.check(ours, true), Ok(()));
        let old = Stamp { connection_epoch: 5, ..ours };
        assert_eq!(old.check(ours, true), Err(Misplaced::OtherConnection));
        assert_eq!(old.check(ours, false), Err(Misplaced::OtherConnection));
        let others = [
            Stamp { cluster_id: 9, ..ours },
            Stamp { epoch: Epoch { counter: 2, bits: 2 }, ..ours },
            Stamp { epoch: Epoch { counter: 1, bits: 3 }, ..ours },
        ];
        for other in others {
            assert_eq!(other.check(ours, true), Err(Misplaced::OtherCluster));
            assert_eq!(other.check(ours, false), Ok(()));
        }
        // Who has no cluster yet fits any.
        let none = Stamp { cluster_id: 0, epoch: Epoch::default(), connection_epoch: 4 };
        assert_eq!(none.check(ours, true), Ok(()));
        assert_eq!(ours.check(none, true), Ok(()));
    }
}
