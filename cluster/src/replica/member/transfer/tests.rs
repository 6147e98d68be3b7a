//! One image between two ends, over a wire that breaks wherever it likes.

use std::collections::VecDeque;

use proptest::prelude::*;
use quorate_consensus::{Config, EntryIndex, Identity, Member, Term, Ticks};
use quorate_engine::{Applier, Database, DatabaseParams, Isolation};
use quorate_schema::{Dictionary, Value};

use super::sending::{
    Due, FULL_PIECES_IN_FLIGHT, KEEP_MS, PIECES_IN_FLIGHT, PieceLimits, Sending, Word,
};
use crate::replica::{Genesis, ImageHead, ImageId, ImagePiece, Roster};

const LIMITS: PieceLimits = PieceLimits { objects: 3, bytes: 200 };

const ID: ImageId = ImageId { term: Term(2), number: 1, last: EntryIndex(9) };

fn dictionary() -> Dictionary {
    Dictionary::parse("declare database test; class Word { unsigned<4> n; string text; list; };")
        .unwrap()
}

/// A database with so many records, of different lengths.
fn database(records: u64) -> Database {
    let db = Database::open("test", dictionary(), DatabaseParams::default()).unwrap();
    let write = |tx: &quorate_engine::Transaction<'_>| {
        for n in 0..records {
            let text = Value::Text("x".repeat((n * 37 % 300) as usize));
            tx.insert_values("Word", &[("n", Value::Unsigned(n)), ("text", text)])?;
        }
        Ok(())
    };
    db.transact(Isolation::Snapshot, write).unwrap();
    db
}

fn sending(applier: &Applier) -> Sending {
    let identity = Identity::new(0, 1);
    let members = vec![Member { identity, rank: 1 }];
    let head = ImageHead {
        last_term: Term(1),
        config: Config { current: members.clone(), next: None },
        genesis: Genesis { cluster_id: 1, members, addresses: vec!["a:1".into()] },
        epoch: crate::epoch::Epoch::default(),
        stopped: Vec::new(),
        roster: Roster::new([]),
        time_ms: 0,
    };
    Sending::new(ID, head, applier.image_stream(), 0)
}

/// Takes all that is made, and makes what there is room for.
fn pump(sending: &mut Sending, now: Ticks) -> Vec<ImagePiece> {
    let mut pieces = Vec::new();
    loop {
        while let Some(piece) = sending.take_unsent() {
            pieces.push(piece);
        }
        if !sending.has_room(LIMITS) || sending.make_piece(LIMITS, now).is_none() {
            return pieces;
        }
    }
}

/// The other end, and the wire to it and back.
struct Wire {
    pieces: VecDeque<ImagePiece>,
    words: VecDeque<u64>,
    builder: quorate_engine::ImageBuilder,
    held: u64,
    delivered: u64,
}

impl Wire {
    fn new(receiver: &Applier) -> Self {
        Self {
            pieces: VecDeque::new(),
            words: VecDeque::new(),
            builder: receiver.image_builder(),
            held: 0,
            delivered: 0,
        }
    }

    fn deliver_piece(&mut self) {
        let Some(piece) = self.pieces.pop_front() else { return };
        assert_eq!(piece.number, self.held, "pieces come in order, each once");
        assert_eq!(piece.head.is_some(), piece.number == 0);
        self.builder.push(&piece.bytes).unwrap();
        self.held += 1;
        self.delivered += piece.bytes.len() as u64;
        self.words.push_back(self.held);
    }

    fn deliver_word(&mut self, sending: &mut Sending, now: Ticks) {
        let Some(held) = self.words.pop_front() else { return };
        let word = sending.receiver_holds(held, now);
        assert!(!matches!(word, Word::Forgotten), "it forgets nothing");
    }

    fn cut(&mut self) {
        self.pieces.clear();
        self.words.clear();
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Pump,
    Piece,
    Word,
    Break,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => Just(Step::Pump),
        12 => Just(Step::Piece),
        8 => Just(Step::Word),
        1 => Just(Step::Break),
    ]
}

proptest! {
    #[test]
    fn a_link_that_breaks_anywhere_repeats_no_piece_and_the_image_arrives(
        records in 0..200u64, steps in prop::collection::vec(step(), 0..150)
    ) {
        let from = database(records);
        let to = Database::open("copy", dictionary(), DatabaseParams::default()).unwrap();
        let mut sending = sending(&from.applier());
        let mut wire = Wire::new(&to.applier());
        let finish = std::iter::repeat_n([Step::Pump, Step::Piece, Step::Word], 1_000).flatten();
        for (now, step) in (0..).zip(steps.into_iter().chain(finish)) {
            match step {
                Step::Pump => wire.pieces.extend(pump(&mut sending, now)),
                Step::Piece => wire.deliver_piece(),
                Step::Word => wire.deliver_word(&mut sending, now),
                Step::Break => {
                    wire.cut();
                    sending.cut(now);
                    prop_assert!(pump(&mut sending, now).is_empty(), "sent to nobody");
                    sending.linked_again(now);
                    prop_assert!(pump(&mut sending, now).is_empty(), "nobody said what is there");
                    wire.words.push_back(wire.held);
                }
            }
            let under_way: usize = wire.pieces.iter().map(|piece| piece.bytes.len()).sum();
            let largest = wire.pieces.iter().map(|piece| piece.bytes.len()).max().unwrap_or(0);
            prop_assert!(wire.pieces.len() <= PIECES_IN_FLIGHT);
            prop_assert!(under_way <= FULL_PIECES_IN_FLIGHT as usize * LIMITS.bytes + largest);
            let (done, total) = sending.progress();
            prop_assert_eq!(done == total, sending.is_confirmed(), "{} of {}", done, total);
            if sending.is_confirmed() {
                break;
            }
        }
        prop_assert!(sending.is_confirmed() && wire.builder.is_complete());
        prop_assert_eq!(sending.progress(), (wire.delivered, wire.delivered));
        to.applier().install_built(wire.builder).unwrap();
        prop_assert_eq!(to.state_hash(), from.state_hash());
    }
}

#[test]
fn pieces_under_way_are_bounded_by_number_too() {
    let db = database(PIECES_IN_FLIGHT as u64 + 50);
    let mut sending = sending(&db.applier());
    let tiny = PieceLimits { objects: 1, bytes: 1 << 20 };
    while sending.has_room(tiny) && sending.make_piece(tiny, 0).is_some() {}
    let made = std::iter::from_fn(|| sending.take_unsent()).count();
    assert_eq!(made, PIECES_IN_FLIGHT);
}

#[test]
fn words_that_cannot_be_true_move_nothing() {
    let db = database(100);
    let mut sending = sending(&db.applier());
    let sent = pump(&mut sending, 0).len() as u64;
    assert_eq!(sending.receiver_holds(sent + 1, 1), Word::Nothing, "more than was sent");
    assert_eq!(sending.receiver_holds(u64::MAX, 1), Word::Nothing);
    assert_eq!(sending.receiver_holds(0, 1), Word::Nothing, "no news");
    assert_eq!(sending.receiver_holds(2, 1), Word::GoOn { resumed: false });
    assert_eq!(sending.receiver_holds(2, 1), Word::Nothing, "said before");
    assert_eq!(sending.receiver_holds(1, 1), Word::Nothing, "an old word again");
    sending.cut(2);
    assert_eq!(sending.receiver_holds(3, 2), Word::Nothing, "an old link's last words");
    sending.linked_again(3);
    assert_eq!(sending.receiver_holds(2, 3), Word::GoOn { resumed: true });
    assert_eq!(pump(&mut sending, 3)[0].number, 2);
}

#[test]
fn a_receiver_that_lost_everything_is_found_out_after_a_break() {
    let db = database(100);
    let mut sending = sending(&db.applier());
    pump(&mut sending, 0);
    sending.receiver_holds(2, 1);
    sending.cut(2);
    sending.linked_again(3);
    assert_eq!(sending.receiver_holds(0, 3), Word::Forgotten);
}

#[test]
fn a_receiver_that_insists_on_less_than_it_confirmed_is_believed() {
    let db = database(100);
    let mut sending = sending(&db.applier());
    pump(&mut sending, 0);
    sending.receiver_holds(3, 1);
    for _ in 0..2 {
        assert_eq!(sending.receiver_holds(1, 2), Word::Nothing);
        assert_eq!(sending.due(sending.due_at()), Due::Ask);
    }
    assert_eq!(sending.receiver_holds(1, 3), Word::Forgotten);
}

#[test]
fn what_is_not_confirmed_is_asked_for_again_and_again_and_then_given_up() {
    let db = database(100);
    let mut sending = sending(&db.applier());
    assert_eq!(sending.due(1_000_000), Due::Nothing, "nothing is under way");
    let sent = pump(&mut sending, 5).len();
    let mut now = 5;
    for asked in 0..super::sending::ASKS_MAX {
        assert_eq!(sending.due(sending.due_at() - 1), Due::Nothing);
        assert!(sending.due_at() > now, "asked {asked} times");
        now = sending.due_at();
        assert_eq!(sending.due(now), Due::Ask);
        assert_eq!(pump(&mut sending, now).len(), sent, "what may be lost is sent again");
    }
    assert_eq!(sending.due(sending.due_at()), Due::Restart);
    assert_eq!(sending.receiver_holds(1, now), Word::GoOn { resumed: false });
    assert_eq!(sending.due(now + 1), Due::Nothing, "it is alive");
}

#[test]
fn a_cut_transfer_is_kept_for_a_while() {
    let db = database(100);
    let mut sending = sending(&db.applier());
    pump(&mut sending, 0);
    sending.cut(100);
    assert_eq!(sending.due(99 + KEEP_MS), Due::Nothing);
    assert_eq!(sending.due(100 + KEEP_MS), Due::Forget);
    sending.linked_again(200);
    assert_eq!(sending.due(201), Due::Nothing);
}
