//! Links between nodes: made, broken, delayed. In order on each channel of a link, as TCP is;
//! what the mix adds to that (loss, repetition, an old link's last words) is harsher than TCP on
//! purpose.

use std::collections::BTreeMap;

use quorate_cluster::replica::Channel;

use crate::options::Mix;
use crate::rng::Rng;

/// Which link between two nodes, counted up over all links of a run.
pub(crate) type Epoch = u64;

/// Who can reach whom, and when the last message on each channel arrives.
#[derive(Debug, Default)]
pub(crate) struct Network {
    /// Up links, by the lower and the higher node.
    links: BTreeMap<(usize, usize), Epoch>,
    /// Pairs between which nothing passes, one way each.
    walls: BTreeMap<(usize, usize), ()>,
    /// Arrival of the newest message, by sender, receiver and channel.
    newest: BTreeMap<(usize, usize, Channel), u64>,
    epochs: Epoch,
}

/// When copies of a message arrive: none if it is lost, two if it is repeated.
pub(crate) type Arrivals = Vec<u64>;

impl Network {
    pub(crate) fn epoch(&self, a: usize, b: usize) -> Option<Epoch> {
        self.links.get(&ordered(a, b)).copied()
    }

    pub(crate) fn is_walled(&self, from: usize, to: usize) -> bool {
        self.walls.contains_key(&(from, to))
    }

    pub(crate) fn connect(&mut self, a: usize, b: usize) -> Epoch {
        self.epochs += 1;
        self.links.insert(ordered(a, b), self.epochs);
        self.newest.retain(|(from, to, _), _| ordered(*from, *to) != ordered(a, b));
        self.epochs
    }

    /// Breaks the link; its epoch if there was one.
    pub(crate) fn disconnect(&mut self, a: usize, b: usize) -> Option<Epoch> {
        self.links.remove(&ordered(a, b))
    }

    /// Nothing passes from one to the other any more.
    pub(crate) fn wall(&mut self, from: usize, to: usize) {
        self.walls.insert((from, to), ());
    }

    /// The walls around one node fall.
    pub(crate) fn heal_node(&mut self, node: usize) {
        self.walls.retain(|(from, to), ()| *from != node && *to != node);
    }

    pub(crate) fn heal(&mut self) {
        self.walls.clear();
    }

    /// When a message sent now arrives.
    pub(crate) fn arrivals(
        &mut self,
        rng: &mut Rng,
        mix: &Mix,
        now: u64,
        path: (usize, usize, Channel),
    ) -> Arrivals {
        if self.is_walled(path.0, path.1) || rng.chance(mix.loss) {
            return Vec::new();
        }
        let newest = self.newest.entry(path).or_insert(0);
        *newest = (*newest).max(now + rng.below(mix.delay_ms + 1));
        let mut arrivals = vec![*newest];
        if rng.chance(mix.repeat) {
            arrivals.push(now + rng.below(20 * mix.delay_ms + 1));
        }
        arrivals
    }
}

fn ordered(a: usize, b: usize) -> (usize, usize) {
    (a.min(b), a.max(b))
}
