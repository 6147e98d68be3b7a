//! Histories of a few transactions, each with one anomaly, or with none although it looks odd.
#![allow(clippy::unwrap_used)]

use quorate_histories::outside::{Verdict, judge_isolation, judge_registers};
use quorate_histories::{
    History, Isolation, Kind, NotIsolated, NotLinearizable, Operation, Outcome, Step,
    check_isolation, check_linearizable_registers,
};

/// `r` of a list or a register, `a`ppend, `w`rite: `"r1=[2,3] a1+4 r2=- w2=7"`.
fn steps(text: &str) -> Vec<Step> {
    text.split_whitespace().map(step).collect()
}

fn step(word: &str) -> Step {
    let (key, rest) = word[1..].split_once(['=', '+']).unwrap();
    let key = key.parse().unwrap();
    match (&word[..1], rest.strip_prefix('[')) {
        ("r", Some(list)) => {
            let values = list.trim_end_matches(']').split(',').filter(|word| !word.is_empty());
            Step::ReadList { key, values: values.map(|word| word.parse().unwrap()).collect() }
        }
        ("r", None) => Step::Read { key, value: rest.parse().ok() },
        ("a", _) => Step::Append { key, value: rest.parse().unwrap() },
        _ => Step::Write { key, value: rest.parse().unwrap() },
    }
}

/// Serializable, committed, by a process of its own, at the same time as all others.
fn op(text: &str) -> Operation {
    static PROCESSES: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
    Operation {
        process: PROCESSES.fetch_add(1, std::sync::atomic::Ordering::Relaxed),
        begin: 0,
        end: Some(100),
        outcome: Outcome::Committed,
        isolation: Isolation::Serializable,
        fresh: false,
        steps: steps(text),
    }
}

fn snapshot(text: &str) -> Operation {
    Operation { isolation: Isolation::Snapshot, ..op(text) }
}

fn ended(outcome: Outcome, text: &str) -> Operation {
    Operation { outcome, ..op(text) }
}

fn at(begin: u64, end: u64, operation: Operation) -> Operation {
    Operation { begin, end: Some(end), ..operation }
}

fn kinds(operations: &[Operation]) -> Vec<Kind> {
    match check_isolation(&History { operations: operations.to_vec() }) {
        Ok(_) => Vec::new(),
        Err(NotIsolated::Anomalies(all)) => all.into_iter().map(|anomaly| anomaly.kind).collect(),
        Err(error) => panic!("{error}"),
    }
}

/// Both checkers find it.
fn bad(kind: Kind, operations: &[Operation]) {
    assert!(kinds(operations).contains(&kind), "{:?} instead of {kind:?}", kinds(operations));
    let verdict = judge_isolation(&History { operations: operations.to_vec() });
    assert!(matches!(verdict, Verdict::Bad(_)), "{kind:?} is {verdict:?} to the other checker");
}

/// It is bad in time, or with levels mixed, which the other checker is not asked for.
fn bad_here(kind: Kind, operations: &[Operation]) {
    assert!(kinds(operations).contains(&kind), "{:?} instead of {kind:?}", kinds(operations));
}

fn good(operations: &[Operation]) {
    assert_eq!(kinds(operations), []);
    let verdict = judge_isolation(&History { operations: operations.to_vec() });
    assert!(!matches!(verdict, Verdict::Bad(_)), "{verdict:?}");
}

#[test]
fn what_nobody_should_see() {
    bad(Kind::AbortedRead, &[ended(Outcome::Refused, "a1+1"), op("r1=[1]")]);
    bad(Kind::IntermediateRead, &[op("a1+1 a1+2"), op("r1=[1]")]);
    bad(Kind::IntermediateRead, &[op("a1+1 a1+2"), op("a1+3"), op("r1=[1,3,2]")]);
    bad(Kind::Internal, &[op("r1=[] a1+1 r1=[]")]);
    bad(Kind::Internal, &[op("a1+2"), op("r1=[] r1=[2]")]);
    bad(Kind::Duplicate, &[op("a1+1"), op("r1=[1,1]")]);
    bad(Kind::IncompatibleOrder, &[op("a1+1"), op("a1+2"), op("r1=[1,2]"), op("r1=[2,1]")]);
    bad_here(Kind::Garbage, &[op("r1=[5]")]);
    bad_here(Kind::Garbage, &[op("r1=[5] a1+5")]);
    bad_here(Kind::Garbage, &[op("r1=5")]);
    bad_here(Kind::AbortedRead, &[ended(Outcome::Refused, "w1=1"), op("r1=1")]);
    bad_here(Kind::IntermediateRead, &[op("w1=1 w1=2"), op("r1=1")]);
    // Nor by one that is refused itself, or whose end nobody knows.
    let seen_by = |outcome| [ended(Outcome::Refused, "a1+1"), ended(outcome, "r1=[1] a2+1")];
    bad_here(Kind::AbortedRead, &seen_by(Outcome::Refused));
    bad_here(Kind::AbortedRead, &seen_by(Outcome::Unknown));
}

#[test]
fn cycles_by_their_names() {
    let dirty_write = [op("a1+1 a2+1"), op("a1+2 a2+2"), op("r1=[1,2] r2=[2,1]")];
    bad(Kind::G0, &dirty_write);
    bad(Kind::G1c, &[op("a1+1 r2=[1]"), op("a2+1 r1=[1]")]);
    bad(Kind::GSingle, &[op("a1+1 a2+1"), snapshot("r1=[1] r2=[]"), op("r2=[1]")]);
    bad(Kind::GSingle, &[op("r1=[] a1+1"), op("r1=[] a1+2"), op("r1=[1,2]")]);
    bad(Kind::G2Item, &[op("r1=[] r2=[] a1+1"), op("r1=[] r2=[] a2+1"), op("r1=[1] r2=[1]")]);
    let long_fork = [op("a1+1"), op("a2+1"), snapshot("r1=[1] r2=[]"), snapshot("r1=[] r2=[1]")];
    bad(Kind::GNonadjacent, &long_fork);
}

#[test]
fn registers_give_away_what_they_can() {
    bad_here(Kind::LostUpdate, &[op("r1=none w1=1"), op("r1=none w1=2")]);
    bad_here(Kind::LostUpdate, &[op("w1=7"), op("r1=7 w1=1"), snapshot("r1=7 w1=2")]);
    bad_here(Kind::G2Item, &[op("r1=none r2=none w1=1"), op("r1=none r2=none w2=1")]);
    bad_here(Kind::GSingle, &[op("r1=none w1=1 w2=1"), op("r1=1 r2=none")]);
    good(&[op("r1=none w1=1"), op("r1=1 w1=2"), op("r1=2")]);
}

#[test]
fn write_skew_is_for_those_who_asked_for_it() {
    let skew = |first: fn(&str) -> Operation, second: fn(&str) -> Operation| {
        [first("r1=[] r2=[] a1+1"), second("r1=[] r2=[] a2+1")]
    };
    good(&skew(snapshot, snapshot));
    good(&skew(snapshot, op));
    bad(Kind::G2Item, &skew(op, op));
}

#[test]
fn what_is_not_known_to_have_happened_may_have() {
    let unknown = |text| Operation { end: None, outcome: Outcome::Unknown, ..op(text) };
    good(&[unknown("a1+1"), op("r1=[]")]);
    good(&[unknown("a1+1"), op("r1=[1]")]);
    // Who saw it proves it, and it has to fit in then, with what it read.
    bad_here(Kind::GSingle, &[unknown("a1+1 a2+1"), op("r1=[1] r2=[]")]);
    bad_here(Kind::G2Item, &[unknown("r2=[] a1+1"), op("r1=[] a2+1"), op("r1=[1]")]);
    good(&[unknown("r2=[] a1+1"), op("r1=[] a2+1"), op("r1=[]")]);
}

#[test]
fn acknowledged_is_there_for_all_who_come_later() {
    let write = || at(0, 10, op("a1+1"));
    // Read-only ones may be behind, unless they asked not to be; those that write may not.
    good(&[write(), at(20, 30, op("r1=[]"))]);
    bad_here(Kind::GSingle, &[write(), at(20, 30, Operation { fresh: true, ..op("r1=[]") })]);
    bad_here(Kind::GSingle, &[write(), at(20, 30, op("r1=[] a2+1"))]);
    good(&[write(), at(20, 30, snapshot("r1=[] a2+1"))]);
    let fresh = Operation { fresh: true, ..snapshot("r1=[] a2+1") };
    bad_here(Kind::GSingle, &[write(), at(20, 30, fresh)]);
    good(&[write(), at(10, 30, Operation { fresh: true, ..op("r1=[]") })]);
    // A session sees its own writes and never goes back.
    let session = |begin, text| Operation { process: 1_000_000, ..at(begin, begin + 10, op(text)) };
    bad_here(Kind::GSingle, &[session(0, "a1+1"), session(20, "r1=[]")]);
    bad_here(Kind::GSingle, &[op("a1+1"), session(0, "r1=[1]"), session(20, "r1=[]")]);
    good(&[op("a1+1"), session(0, "r1=[]"), session(20, "r1=[1]")]);
}

#[test]
fn an_acknowledged_element_that_nobody_ever_sees_is_lost() {
    let read = at(20, 30, Operation { fresh: true, ..op("r1=[2]") });
    bad_here(Kind::GSingle, &[at(0, 10, op("a1+1")), at(0, 10, op("a1+2")), read]);
}

#[test]
fn a_clean_history_says_how_much_it_was() {
    let operations = vec![op("a1+1"), op("r1=[1] a1+2"), op("r1=[1,2]"), op("r1=[]")];
    let checked = check_isolation(&History { operations }).unwrap();
    assert_eq!((checked.transactions, checked.ww, checked.wr, checked.rw), (4, 1, 2, 1));
}

fn linearizable(operations: &[Operation]) -> bool {
    let history = History { operations: operations.to_vec() };
    let ours = match check_linearizable_registers(&history) {
        Ok(_) => true,
        Err(NotLinearizable::NoOrder { .. }) => false,
        Err(error) => panic!("{error}"),
    };
    match judge_registers(&history) {
        Verdict::Good => assert!(ours, "the other checker finds it good"),
        Verdict::Bad(what) => assert!(!ours, "the other checker finds {what}"),
        Verdict::Unknown(_) => {}
    }
    ours
}

#[test]
fn registers_in_real_time() {
    assert!(linearizable(&[at(0, 10, op("w1=1")), at(11, 20, op("r1=1"))]));
    assert!(!linearizable(&[at(0, 10, op("w1=1")), at(11, 20, op("r1=none"))]));
    assert!(linearizable(&[at(0, 10, op("w1=1")), at(5, 20, op("r1=none"))]));
    let sees_and_forgets = [at(0, 99, op("w1=1")), at(5, 9, op("r1=1")), at(10, 20, op("r1=none"))];
    assert!(!linearizable(&sees_and_forgets));
    let swapped = [at(0, 9, op("r1=none w1=1")), at(0, 9, op("r1=1 w1=2")), at(10, 20, op("r1=2"))];
    assert!(linearizable(&swapped));
    assert!(!linearizable(&[at(0, 9, op("r1=none w1=1")), at(0, 9, op("r1=none w1=2"))]));
    assert!(!linearizable(&[ended(Outcome::Refused, "w1=1"), op("r1=1")]));
}

#[test]
fn a_write_of_unknown_end_can_come_late_or_never() {
    let unknown = |text| Operation { end: None, outcome: Outcome::Unknown, ..op(text) };
    let late = [unknown("w1=1"), at(50, 60, op("r1=none")), at(70, 80, op("r1=1"))];
    assert!(linearizable(&late));
    let back = [late[0].clone(), late[2].clone(), at(90, 95, op("r1=none"))];
    assert!(!linearizable(&back));
    assert!(linearizable(&[unknown("w1=1"), at(50, 60, op("r1=none"))]));
}

#[test]
fn an_operation_on_two_registers_is_not_one_on_a_register() {
    let history = History { operations: vec![op("r1=none"), op("r1=none r2=none")] };
    let error = check_linearizable_registers(&history).unwrap_err();
    assert!(matches!(error, NotLinearizable::NotASingleRegister { operation: 1 }), "{error}");
}
