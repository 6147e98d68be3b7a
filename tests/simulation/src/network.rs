//! Links between processes: made, broken, delayed, walled off.
//!
//! A link is three connections, one a channel, each a stream of bytes each way. A stream loses
//! nothing and keeps its order, as TCP does; its segments come in pieces of any size, and when the
//! link breaks, what is under way arrives or does not, up to any byte. Behind a wall the segments
//! wait, as they would for their retransmission. Streams of the same link overtake each other.

use std::collections::{BTreeMap, VecDeque};

use quorate_cluster::replica::Channel;

use crate::options::Mix;
use crate::rng::Rng;

/// Which link, counted up over all links of a run.
pub(crate) type LinkId = u64;

/// Bytes on their way.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) bytes: Vec<u8>,
    /// They were damaged, or belong to an older connection: no message may come of them, nor of
    /// what follows.
    pub(crate) tainted: bool,
}

/// One direction of one connection.
#[derive(Debug, Default)]
struct Stream {
    segments: VecDeque<Segment>,
    /// When the newest one arrives.
    newest: u64,
    /// How many reached a wall.
    held: usize,
}

/// What connects two processes, named by their slots.
#[derive(Debug)]
struct Link {
    ends: (usize, usize),
    streams: BTreeMap<(usize, Channel), Stream>,
    /// How many ends still take it for up.
    believers: usize,
}

/// A stream: its link, who sends, and the channel.
pub(crate) type Path = (LinkId, usize, Channel);

/// Who can reach whom, and what is on its way.
#[derive(Debug, Default)]
pub(crate) struct Network {
    /// All links that somebody takes for up.
    links: BTreeMap<LinkId, Link>,
    /// Those that are, by the lower and the higher slot.
    current: BTreeMap<(usize, usize), LinkId>,
    /// Pairs between which nothing passes, one way each.
    walls: BTreeMap<(usize, usize), ()>,
    /// How slow each way between two slots is, in the mix's delays.
    slowness: BTreeMap<(usize, usize), u64>,
    /// Everything is slow until then.
    pub(crate) burst_until: u64,
    /// Last frames on each way between two slots, for replays.
    recent: BTreeMap<(usize, usize, Channel), Vec<u8>>,
    made: LinkId,
}

impl Network {
    /// The link that is up.
    pub(crate) fn link(&self, a: usize, b: usize) -> Option<LinkId> {
        self.current.get(&ordered(a, b)).copied()
    }

    /// Between whom links are up.
    pub(crate) fn all(&self) -> Vec<(usize, usize)> {
        self.current.keys().copied().collect()
    }

    pub(crate) fn is_up(&self, link: LinkId) -> bool {
        self.links.get(&link).is_some_and(|l| self.current.get(&l.ends) == Some(&link))
    }

    pub(crate) fn is_walled(&self, from: usize, to: usize) -> bool {
        self.walls.contains_key(&(from, to))
    }

    pub(crate) fn connect(&mut self, a: usize, b: usize) -> LinkId {
        self.made += 1;
        let (ends, streams) = (ordered(a, b), BTreeMap::new());
        self.links.insert(self.made, Link { ends, streams, believers: 2 });
        self.current.insert(ends, self.made);
        self.made
    }

    /// Breaks the link; which it was, if there was one. What is under way may still arrive, until
    /// the end it goes to notices.
    pub(crate) fn disconnect(&mut self, a: usize, b: usize) -> Option<LinkId> {
        self.current.remove(&ordered(a, b))
    }

    /// One end does not take it for up any more. Returns how many bytes were on their way.
    pub(crate) fn forget(&mut self, link: LinkId) -> usize {
        let Some(entry) = self.links.get_mut(&link) else { return 0 };
        entry.believers -= 1;
        if entry.believers > 0 {
            return 0;
        }
        let lost = entry.streams.values().flat_map(|stream| &stream.segments);
        let lost = lost.map(|segment| segment.bytes.len()).sum();
        self.links.remove(&link);
        lost
    }

    /// Who is at the other end.
    pub(crate) fn other_end(&self, link: LinkId, from: usize) -> Option<usize> {
        let (a, b) = self.links.get(&link)?.ends;
        Some(if a == from { b } else { a })
    }

    /// Puts bytes on a stream; when they arrive. `None` if the link is broken already.
    pub(crate) fn push(&mut self, path: Path, segment: Segment, at: u64) -> Option<u64> {
        let (link, from, channel) = path;
        if !self.is_up(link) {
            return None;
        }
        let stream = self.links.get_mut(&link)?.streams.entry((from, channel)).or_default();
        stream.newest = stream.newest.max(at);
        stream.segments.push_back(segment);
        Some(stream.newest)
    }

    /// The next bytes of a stream.
    pub(crate) fn pop(&mut self, (link, from, channel): Path) -> Option<Segment> {
        self.links.get_mut(&link)?.streams.get_mut(&(from, channel))?.segments.pop_front()
    }

    /// The next bytes of a stream have to wait for a wall to fall.
    pub(crate) fn hold(&mut self, (link, from, channel): Path) {
        let links = self.links.get_mut(&link);
        if let Some(stream) = links.and_then(|link| link.streams.get_mut(&(from, channel))) {
            stream.held += 1;
        }
    }

    /// The walls around one slot fall, or all. Returns the streams that go on, and by how many
    /// segments.
    pub(crate) fn heal(&mut self, around: Option<usize>) -> Vec<(Path, usize)> {
        let falls = |from: usize, to: usize| around.is_none_or(|slot| from == slot || to == slot);
        self.walls.retain(|(from, to), ()| !falls(*from, *to));
        let mut freed = Vec::new();
        for (id, link) in &mut self.links {
            let (a, b) = link.ends;
            for ((from, channel), stream) in &mut link.streams {
                let to = if *from == a { b } else { a };
                if stream.held > 0 && !self.walls.contains_key(&(*from, to)) {
                    freed.push(((*id, *from, *channel), std::mem::take(&mut stream.held)));
                }
            }
        }
        freed
    }

    /// Nothing passes from one to the other any more.
    pub(crate) fn wall(&mut self, from: usize, to: usize) {
        self.walls.insert((from, to), ());
    }

    pub(crate) fn slow_down(&mut self, from: usize, to: usize, times: u64) {
        self.slowness.insert((from, to), times);
    }

    /// No way is slower than the others any more.
    pub(crate) fn speed_up(&mut self) {
        self.slowness.clear();
        self.burst_until = 0;
    }

    /// How long bytes take.
    pub(crate) fn delay(&self, rng: &mut Rng, mix: &Mix, now: u64, way: (usize, usize)) -> u64 {
        let slowness = self.slowness.get(&way).copied().unwrap_or(1);
        let burst = if now < self.burst_until { 10 } else { 1 };
        rng.below(mix.delay_ms * slowness * burst + 1)
    }

    /// Remembers a frame as one that may turn up again.
    pub(crate) fn remember(&mut self, from: usize, to: usize, channel: Channel, frame: &[u8]) {
        let kept = self.recent.entry((from, to, channel)).or_default();
        kept.clear();
        kept.extend_from_slice(frame);
    }

    pub(crate) fn remembered(&self, from: usize, to: usize, channel: Channel) -> Option<Vec<u8>> {
        self.recent.get(&(from, to, channel)).cloned()
    }
}

fn ordered(a: usize, b: usize) -> (usize, usize) {
    (a.min(b), a.max(b))
}
