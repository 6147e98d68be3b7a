//! Who is welcome: the transport's side of the handshake.
//!
//! The dialled side judges a hello by the rules of the [module above](super); the dialler checks
//! that it reached whom it dialled. Nothing here reads or writes a socket.

use mio::Token;
use quorate_consensus::Identity;
use tracing::{info, warn};

use super::connection::{Ended, State};
use super::link::slot;
use super::{LinkEvent, Transport};
use crate::error::RejectReason;
use crate::wire::{Card, FrameWriter, Hello, Kind, VERSION, VERSION_MIN, Welcome, encode_reject};

impl Transport {
    pub(super) fn answer(&mut self, token: Token, hello: &Hello) {
        let node = hello.card.identity.node;
        match self.judge(hello) {
            Ok(version) => self.welcome(token, hello, version),
            Err(told) => {
                if (node.0 as usize) < self.links.len() {
                    let reason = seen_from_here(told, hello);
                    let link = &mut self.links[node.0 as usize];
                    let news = !link.up && link.refusal != Some(reason);
                    if news {
                        link.refusal = Some(reason);
                    }
                    if news {
                        warn!(node = node.0, %reason, "refused a connection");
                        self.events.push_back(LinkEvent::Refused { node, reason, by_us: true });
                    }
                }
                let connection = self.connections.get_mut(&token).expect("it said hello");
                connection.state = State::Refused;
                let mut frame = FrameWriter::new();
                encode_reject(&told, frame.writer());
                self.queue(token, Kind::Reject, frame);
            }
        }
    }

    /// Whether, and in which version, to speak with who says this hello.
    fn judge(&mut self, hello: &Hello) -> Result<u16, RejectReason> {
        let ours = &self.settings.card;
        let theirs = &hello.card;
        let Some(version) = hello.common_version() else {
            return Err(RejectReason::VersionUnsupported { min: VERSION_MIN, max: VERSION });
        };
        if theirs.identity == ours.identity && theirs.nonce == ours.nonce {
            return Err(RejectReason::SelfConnection);
        }
        if hello.to != ours.identity.node {
            return Err(RejectReason::WrongNode { node: ours.identity.node });
        }
        if theirs.dictionary != ours.dictionary {
            return Err(RejectReason::OtherDictionary { digest: ours.dictionary });
        }
        let own = ours.identity.node;
        self.judge_cluster(theirs)?;
        self.judge_place(theirs)?;
        if theirs.identity.node == own {
            self.note_own_claim(theirs.nonce);
            return Err(RejectReason::DuplicateNode);
        }
        if theirs.identity.node < own {
            return Err(RejectReason::WrongDirection);
        }
        self.ensure_link(theirs.identity.node);
        self.judge_duplicate((theirs.identity, theirs.nonce))?;
        Ok(version)
    }

    /// Another process under the id of a node that is heard from has to wait until it is gone.
    fn judge_duplicate(&mut self, theirs: (Identity, u128)) -> Result<(), RejectReason> {
        let node = theirs.0.node;
        let link = &self.links[node.0 as usize];
        if link.peer.is_none_or(|peer| peer == theirs) {
            return Ok(());
        }
        let tokens = link.tokens.iter().flatten();
        let heard = tokens.map(|token| self.connections[token].heard).max().unwrap_or(0);
        if self.now < heard + self.settings.alive_ms {
            self.note_claim(node, theirs.1, heard);
            return Err(RejectReason::DuplicateNode);
        }
        Ok(())
    }

    /// A hello may be the bytes of an earlier one, sent again by anybody. So it changes nothing
    /// yet: the caller has to answer with what only this welcome tells, the connection epoch.
    fn welcome(&mut self, token: Token, hello: &Hello, version: u16) {
        let epoch = self.next_random();
        let welcome = Welcome { version, card: self.settings.card, connection_epoch: epoch };
        let mut frame = FrameWriter::new();
        welcome.encode(frame.writer());
        self.queue(token, Kind::Welcome, frame);
        let connection = self.connections.get_mut(&token).expect("it said hello");
        connection.state = State::AwaitProof;
        connection.channel = Some(hello.channel);
        connection.epoch = epoch;
        connection.claims = Some((hello.card.identity, hello.card.nonce));
    }

    /// The caller heard the welcome: it is who it said, and alive.
    pub(super) fn proved(&mut self, token: Token) {
        let connection = &self.connections[&token];
        let peer = connection.claims.expect("known since its hello");
        let channel = connection.channel.expect("known since its hello");
        let epoch = connection.epoch;
        // Much may have happened since the hello.
        if let Err(reason) = self.judge_duplicate(peer) {
            return self.end(token, &Ended::Refused(reason));
        }
        let node = peer.0.node;
        let link = &self.links[node.0 as usize];
        let other = link.peer.is_some_and(|known| known != peer);
        if other || link.tokens[slot(channel)].is_some() {
            // Another life; or the process dials again although its first connection looks alive
            // from here: it knows better.
            self.break_link(node, &Ended::Replaced);
        }
        let link = &mut self.links[node.0 as usize];
        if link.is_idle() {
            link.since = self.now;
        }
        link.tokens[slot(channel)] = Some(token);
        let connection = self.connections.get_mut(&token).expect("it is not of the broken link");
        connection.node = Some(node);
        self.open(token, epoch, peer);
    }

    pub(super) fn welcomed(&mut self, token: Token, welcome: &Welcome) {
        let connection = &self.connections[&token];
        let node = connection.node.expect("a dialled connection knows whom it dials");
        let Card { identity, nonce, .. } = welcome.card;
        let known = self.links[node.0 as usize].peer;
        let same = known.is_none_or(|known| known == (identity, nonce));
        if identity.node != node || !same {
            return self.end(token, &Ended::OtherNode);
        }
        // It welcomed what this node said before it belonged where it does now.
        if self.judge_cluster(&welcome.card).is_err() {
            return self.end(token, &Ended::OtherLife);
        }
        self.open(token, welcome.connection_epoch, (identity, nonce));
        self.queue(token, Kind::Ping, FrameWriter::new()); // the proof that this side heard it
    }

    fn open(&mut self, token: Token, epoch: u64, peer: (Identity, u128)) {
        let connection = self.connections.get_mut(&token).expect("open is for the living");
        connection.state = State::Open;
        connection.epoch = epoch;
        let channel = connection.channel.expect("set before it opens");
        let (identity, _) = peer;
        let link = &mut self.links[identity.node.0 as usize];
        if link.opened(channel, peer) {
            self.unread.extend(link.tokens.into_iter().flatten());
            info!(node = identity.node.0, ?identity, "link is up");
            self.events.push_back(LinkEvent::Up(identity));
        }
    }

    pub(super) fn refused(&mut self, token: Token, reason: RejectReason) {
        let node = self.connections[&token].node.expect("a dialled connection knows whom it dials");
        match reason {
            RejectReason::OtherEpoch { epoch } | RejectReason::ForkedEpoch { epoch } => {
                self.note_epoch(node, epoch);
            }
            _ => {}
        }
        let link = &mut self.links[node.0 as usize];
        if link.refusal != Some(reason) {
            link.refusal = Some(reason);
            warn!(node = node.0, %reason, "refused by the other node");
            self.events.push_back(LinkEvent::Refused { node, reason, by_us: false });
        }
        self.end(token, &Ended::Refused(reason));
    }

    /// xorshift64*: connection epochs only have to differ from each other.
    pub(super) fn next_random(&mut self) -> u64 {
        let mut x = self.settings.random | 1;
        x ^= x >> 12;
        x ^= x << 25;
        x ^= x >> 27;
        self.settings.random = x;
        x.wrapping_mul(0x2545_F491_4F6C_DD1D).max(1)
    }
}

/// What a refusal that tells the caller of this node says here of the caller.
fn seen_from_here(told: RejectReason, hello: &Hello) -> RejectReason {
    let Card { cluster_id, epoch, dictionary, node_count, .. } = hello.card;
    match told {
        RejectReason::VersionUnsupported { .. } => {
            RejectReason::VersionUnsupported { min: hello.version_min, max: hello.version_max }
        }
        RejectReason::OtherCluster { .. } => RejectReason::OtherCluster { cluster_id },
        RejectReason::OtherEpoch { .. } => RejectReason::OtherEpoch { epoch },
        RejectReason::ForkedEpoch { .. } => RejectReason::ForkedEpoch { epoch },
        RejectReason::OtherDictionary { .. } => {
            RejectReason::OtherDictionary { digest: dictionary }
        }
        // Its own list has room for it.
        RejectReason::UnknownNode { .. } | RejectReason::NodesDiffer { .. } => {
            RejectReason::NodesDiffer { nodes: node_count }
        }
        // These are the same from both sides.
        RejectReason::DuplicateNode
        | RejectReason::WrongNode { .. }
        | RejectReason::SelfConnection
        | RejectReason::WrongDirection
        | RejectReason::Removed
        | RejectReason::ShuttingDown
        | RejectReason::TooManyConnections { .. } => told,
    }
}

#[cfg(test)]
mod tests {
    use quorate_consensus::NodeId;

    use super::*;
    use crate::epoch::Epoch;
    use crate::replica::Channel;

    #[test]
    fn what_is_kept_of_a_refusal_tells_of_the_caller() {
        let epoch = |counter| Epoch { counter, bits: 0 };
        let card = Card {
            identity: Identity::new(1, 2),
            nonce: 3,
            cluster_id: 4,
            epoch: epoch(5),
            dictionary: 6,
            node_count: 7,
        };
        let mut hello = Hello::new(card, NodeId(0), Channel::Control);
        (hello.version_min, hello.version_max) = (8, 9);
        let differ = RejectReason::NodesDiffer { nodes: 7 };
        let wrong = RejectReason::WrongNode { node: NodeId(0) };
        let cases = [
            (
                RejectReason::VersionUnsupported { min: 100, max: 100 },
                RejectReason::VersionUnsupported { min: 8, max: 9 },
            ),
            (
                RejectReason::OtherCluster { cluster_id: 100 },
                RejectReason::OtherCluster { cluster_id: 4 },
            ),
            (
                RejectReason::OtherEpoch { epoch: epoch(100) },
                RejectReason::OtherEpoch { epoch: epoch(5) },
            ),
            (
                RejectReason::OtherDictionary { digest: 100 },
                RejectReason::OtherDictionary { digest: 6 },
            ),
            (RejectReason::NodesDiffer { nodes: 100 }, differ),
            (RejectReason::UnknownNode { nodes: 100 }, differ),
            (wrong, wrong),
            (RejectReason::DuplicateNode, RejectReason::DuplicateNode),
        ];
        for (told, seen) in cases {
            assert_eq!(seen_from_here(told, &hello), seen);
        }
    }
}
