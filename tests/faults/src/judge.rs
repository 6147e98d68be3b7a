//! The verdict on what clients saw. Nothing here knows how the database works.
//!
//! * registers are linearizable, and transactions on lists isolated as they asked to be, judged by
//!   the checkers of `quorate-histories`;
//! * at the end every acknowledged append is there, once, and no refused one is;
//! * money is neither made nor lost: every total of all accounts is the same, and at the end each
//!   holds what acknowledged moves explain, give or take those of unknown outcome;
//! * commit indexes respect real time: what was acknowledged before another began is before it;
//! * who is cut off from a quorum acknowledges nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

use quorate_histories as histories;
use quorate_histories::outside::{self, Verdict};

use crate::client::OPENING_BALANCE;
use crate::history::{End, Operation, Promise, Step};
use crate::protocol::Load;

/// Promises that were broken.
#[derive(Debug)]
pub struct Violation {
    /// At least one, each with who noticed.
    pub broken: Vec<(Judge, String)>,
    /// What else helps to understand it.
    pub more: String,
}

/// Who noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judge {
    /// The checker of linearizable registers.
    Registers,
    /// The checker of isolation.
    Transactions,
    /// A checker that others wrote.
    Outside,
    /// Commit indexes and real time.
    Indexes,
    /// Who had no quorum.
    Minorities,
    /// What became of appends.
    Appends,
    /// The accounts.
    Money,
}

/// A time in which some nodes were cut off from every quorum.
#[derive(Clone, Debug)]
pub struct CutOff {
    /// Who.
    pub nodes: Vec<usize>,
    /// From when, on the conductor's clock.
    pub from_ns: u64,
    /// Until when.
    pub to_ns: u64,
}

/// How much was judged and found good: a verdict on little is worth little.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Judged {
    /// Acknowledged operations.
    pub acknowledged: usize,
    /// Refused ones.
    pub refused: usize,
    /// Those of unknown outcome.
    pub unknown: usize,
    /// Commits in doubt that were told to be committed, or never to be, when asked for.
    pub settled: usize,
    /// Operations on registers.
    pub registers: usize,
    /// Dependencies between transactions on lists.
    pub dependencies: usize,
    /// Totals of all accounts.
    pub totals: usize,
    /// How many outside checkers agreed.
    pub outside: usize,
    /// How many terms began while clients worked.
    pub terms: u64,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (judge, what) in &self.broken {
            write!(f, "{judge:?}: {what}; ")?;
        }
        f.write_str(&self.more)
    }
}

impl fmt::Display for Judged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} acknowledged, {} refused, {} unknown, {} settled, {} terms; {} on registers, \
             {} dependencies, \
             {} totals, {} outside checkers agree",
            self.acknowledged,
            self.refused,
            self.unknown,
            self.settled,
            self.terms,
            self.registers,
            self.dependencies,
            self.totals,
            self.outside
        )
    }
}

/// Judges a history that ends with an audit.
///
/// # Errors
///
/// All promises that were broken.
pub fn judge(
    operations: &[Operation],
    accounts: u64,
    cut_off: &[CutOff],
) -> Result<Judged, Violation> {
    let count = |end| operations.iter().filter(|operation| operation.end == end).count();
    let registers = history(operations, |load| load == Load::Registers);
    let lists = history(operations, |load| matches!(load, Load::Serializable | Load::Snapshot));
    let mut broken = Vec::new();
    let judged = Judged {
        terms: 0,
        acknowledged: count(End::Ok),
        refused: count(End::Failed),
        unknown: count(End::Unknown),
        settled: operations.iter().filter(|o| o.doubted && o.end != End::Unknown).count(),
        registers: histories::check_linearizable_registers(&registers)
            .map_err(|problem| broken.push((Judge::Registers, problem.to_string())))
            .unwrap_or(0),
        dependencies: histories::check_isolation(&lists)
            .map(|checked| checked.ww + checked.wr + checked.rw)
            .map_err(|problem| broken.push((Judge::Transactions, problem.to_string())))
            .unwrap_or(0),
        totals: money_is_kept(operations, accounts)
            .map_err(|what| broken.push((Judge::Money, what)))
            .unwrap_or(0),
        outside: [outside::judge_registers(&registers), outside::judge_isolation(&lists)]
            .into_iter()
            .filter_map(|verdict| match verdict {
                Verdict::Good => Some(()),
                Verdict::Bad(what) => {
                    broken.push((Judge::Outside, what));
                    None
                }
                Verdict::Unknown(_) => None,
            })
            .count(),
    };
    let rest = [
        (Judge::Indexes, indexes_respect_time(operations)),
        (Judge::Minorities, minorities_acknowledge_nothing(operations, cut_off)),
        (Judge::Appends, appends_are_there(operations)),
    ];
    broken.extend(rest.into_iter().filter_map(|(judge, found)| Some((judge, found.err()?))));
    if broken.is_empty() { Ok(judged) } else { Err(Violation { broken, more: String::new() }) }
}

/// The lists that any client used.
pub fn lists(operations: &[Operation]) -> Vec<u64> {
    let keys: BTreeSet<u64> = operations
        .iter()
        .flat_map(|operation| &operation.steps)
        .filter_map(|step| match step {
            Step::List(key, _) | Step::Append(key, _) => Some(*key),
            _ => None,
        })
        .collect();
    keys.into_iter().collect()
}

/// Whether it has a place of its own in the order of the log.
fn is_ordered(operation: &Operation) -> bool {
    let writes = |step: &Step| match step {
        Step::Write(..) | Step::Append(..) => true,
        Step::Swap(_, expected, _, held) => *held == Some(*expected),
        Step::Move(_, _, _, moved) => *moved == Some(true),
        Step::Read(..) | Step::List(..) | Step::Balances(_) => false,
    };
    operation.promise == Promise::Ordered || operation.steps.iter().any(writes)
}

/// Whether it promises to come after all that was acknowledged before it began.
fn is_in_time(operation: &Operation) -> bool {
    operation.promise == Promise::Fresh || is_ordered(operation)
}

fn indexes_respect_time(operations: &[Operation]) -> Result<(), String> {
    let mut ordered: Vec<(u64, u64, u64, bool)> = operations
        .iter()
        .filter(|operation| operation.end == End::Ok && is_in_time(operation))
        .filter_map(|o| Some((o.called_ns, o.ended_ns?, o.index, is_ordered(o))))
        .collect();
    let mut by_end = ordered.clone();
    ordered.sort_unstable();
    by_end.sort_unstable_by_key(|(_, ended, ..)| *ended);
    let mut ended = by_end.iter().peekable();
    let mut newest = 0;
    for (called, _, index, own) in ordered {
        while let Some((_, _, before, _)) = ended.next_if(|(_, at, ..)| *at < called) {
            newest = newest.max(*before);
        }
        // A read may have the place of what it saw.
        if index < newest || own && index == newest {
            return Err(format!(
                "an operation began after index {newest} was acknowledged, and got {index}"
            ));
        }
    }
    Ok(())
}

fn minorities_acknowledge_nothing(
    operations: &[Operation],
    cut_off: &[CutOff],
) -> Result<(), String> {
    for cut in cut_off {
        let caught = operations.iter().find(|o| {
            o.end == End::Ok
                && is_in_time(o)
                && cut.nodes.contains(&o.node)
                && o.called_ns > cut.from_ns
                && o.ended_ns.is_some_and(|ended| ended < cut.to_ns)
        });
        if let Some(operation) = caught {
            return Err(format!(
                "node {} had no quorum and acknowledged {operation:?}",
                operation.node
            ));
        }
    }
    Ok(())
}

/// The operations of some loads as the checkers want them.
fn history(operations: &[Operation], wanted: impl Fn(Load) -> bool) -> histories::History {
    let mut sessions: HashMap<&str, u64> = HashMap::new();
    let mut next = 0;
    let mut history = histories::History::default();
    for operation in operations.iter().filter(|operation| wanted(operation.load)) {
        let process = *sessions.entry(&operation.client).or_insert_with(|| {
            next += 1;
            next
        });
        if operation.end == End::Unknown {
            sessions.remove(operation.client.as_str()); // what follows is another session
        }
        history.operations.push(histories::Operation {
            process,
            begin: operation.called_ns,
            end: operation.ended_ns,
            outcome: match operation.end {
                End::Ok => histories::Outcome::Committed,
                End::Failed => histories::Outcome::Refused,
                End::Unknown => histories::Outcome::Unknown,
            },
            isolation: match operation.promise {
                Promise::Snapshot => histories::Isolation::Snapshot,
                Promise::Ordered | Promise::Fresh => histories::Isolation::Serializable,
            },
            fresh: operation.promise != Promise::Snapshot,
            steps: steps(operation),
        });
    }
    history
}

fn steps(operation: &Operation) -> Vec<histories::Step> {
    let seen = |value: u64| Some(value).filter(|value| *value != 0);
    let answered = operation.end == End::Ok;
    let mut steps = Vec::new();
    for step in &operation.steps {
        match step {
            Step::Read(key, value) => {
                let value = value.and_then(seen);
                steps.push(histories::Step::Read { key: *key, value });
            }
            Step::Write(key, value) => {
                steps.push(histories::Step::Write { key: *key, value: *value });
            }
            Step::Swap(key, expected, value, held) => {
                // Without an answer: if it wrote anything, it had found what it expected.
                let held = held.unwrap_or(*expected);
                steps.push(histories::Step::Read { key: *key, value: seen(held) });
                if held == *expected {
                    steps.push(histories::Step::Write { key: *key, value: *value });
                }
            }
            Step::List(key, values) => {
                // What an operation without answer read is not known.
                if let Some(values) = values.clone().filter(|_| answered) {
                    steps.push(histories::Step::ReadList { key: *key, values });
                }
            }
            Step::Append(key, value) => {
                steps.push(histories::Step::Append { key: *key, value: *value });
            }
            Step::Move(..) | Step::Balances(_) => {}
        }
    }
    steps
}

/// The newest acknowledged operation that read all lists there are says what is there.
fn appends_are_there(operations: &[Operation]) -> Result<(), String> {
    let all = lists(operations);
    let is_audit = |o: &&Operation| {
        let reads = o.steps.iter().all(|step| matches!(step, Step::List(..)));
        o.end == End::Ok && reads && lists(std::slice::from_ref(o)) == all
    };
    let Some(audit) = operations.iter().rev().find(is_audit) else {
        return if all.is_empty() { Ok(()) } else { Err("no audit of lists".to_owned()) };
    };
    let mut there: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    for step in &audit.steps {
        if let Step::List(key, Some(values)) = step {
            there.insert(*key, values.clone());
        }
    }
    for operation in operations.iter().filter(|operation| operation.called_ns < audit.called_ns) {
        for step in &operation.steps {
            let Step::Append(key, value) = step else { continue };
            let times = there[key].iter().filter(|there| *there == value).count();
            let right = match operation.end {
                End::Ok => times == 1,
                End::Failed => times == 0,
                End::Unknown => times <= 1,
            };
            if !right {
                let end = operation.end;
                return Err(format!(
                    "{value} was appended to list {key}, which ended as {end:?}, and is there \
                     {times} times"
                ));
            }
        }
    }
    Ok(())
}

/// How many totals were seen.
fn money_is_kept(operations: &[Operation], accounts: u64) -> Result<usize, String> {
    let expected = OPENING_BALANCE * accounts as i64;
    let mut last: Option<&Vec<i64>> = None;
    let mut totals = 0;
    for operation in operations.iter().filter(|operation| operation.end == End::Ok) {
        for step in &operation.steps {
            let Step::Balances(Some(balances)) = step else { continue };
            let total: i64 = balances.iter().sum();
            if total != expected || balances.iter().any(|balance| *balance < 0) {
                return Err(format!("accounts held {balances:?}, not {expected} in all"));
            }
            totals += 1;
            // Others may have been called late and saw an old state.
            if operation.promise == Promise::Fresh {
                last = Some(balances);
            }
        }
    }
    let Some(last) = last else {
        return if totals == 0 { Ok(0) } else { Err("no audit of accounts".to_owned()) };
    };
    let mut low = vec![OPENING_BALANCE; accounts as usize];
    let mut high = low.clone();
    for operation in operations {
        for step in &operation.steps {
            let Step::Move(from, to, amount, moved) = step else { continue };
            let (from, to, amount) = (*from as usize, *to as usize, *amount as i64);
            let done = operation.end == End::Ok && *moved == Some(true);
            let perhaps = operation.end == End::Unknown && from != to;
            if done || perhaps {
                low[from] -= amount;
                high[to] += amount;
            }
            if done {
                high[from] -= amount;
                low[to] += amount;
            }
        }
    }
    for (account, balance) in last.iter().enumerate() {
        if !(low[account]..=high[account]).contains(balance) {
            return Err(format!(
                "account {account} holds {balance} at the end, and what was acknowledged explains \
                 {} to {}",
                low[account], high[account]
            ));
        }
    }
    Ok(totals)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An operation from 10 to 20, and so on, so that places in the list are places in time.
    fn operations(done: Vec<(Load, End, Vec<Step>)>) -> Vec<Operation> {
        let mut operations = Vec::new();
        for (place, (load, end, steps)) in (1..).zip(done) {
            operations.push(Operation {
                node: 0,
                client: format!("client {place}"),
                load,
                steps,
                promise: Promise::Ordered,
                called_ns: 10 * place,
                ended_ns: Some(10 * place + 9),
                end,
                index: place,
                doubted: false,
            });
        }
        operations
    }

    fn broken(operations: &[Operation], cut_off: &[CutOff]) -> Vec<Judge> {
        match judge(operations, 2, cut_off) {
            Ok(_) => Vec::new(),
            Err(violation) => violation.broken.into_iter().map(|(judge, _)| judge).collect(),
        }
    }

    #[test]
    fn a_good_history_is_good() {
        let mut good = operations(vec![
            (Load::Registers, End::Ok, vec![Step::Read(1, Some(0))]),
            (Load::Registers, End::Ok, vec![Step::Write(1, 5)]),
            (Load::Registers, End::Ok, vec![Step::Swap(1, 5, 6, Some(5))]),
            (Load::Registers, End::Ok, vec![Step::Swap(1, 5, 7, Some(6))]),
            (Load::Registers, End::Unknown, vec![Step::Swap(1, 6, 8, None)]),
            (Load::Registers, End::Failed, vec![Step::Write(1, 9)]),
            (Load::Registers, End::Ok, vec![Step::Read(1, Some(8))]),
            (Load::Serializable, End::Ok, vec![Step::Append(3, 1)]),
            (Load::Serializable, End::Failed, vec![Step::Append(3, 2)]),
            (Load::Serializable, End::Unknown, vec![Step::Append(3, 4)]),
            (Load::Bank, End::Ok, vec![Step::Move(0, 1, 30, Some(true))]),
            (Load::Bank, End::Unknown, vec![Step::Move(1, 0, 10, None)]),
            (Load::Serializable, End::Ok, vec![Step::List(3, Some(vec![1, 4]))]),
            (Load::Bank, End::Ok, vec![Step::Balances(Some(vec![80, 120]))]),
            (Load::Bank, End::Ok, vec![Step::Balances(Some(vec![100, 100]))]),
        ]);
        good[13].promise = Promise::Fresh;
        good[14].promise = Promise::Snapshot;
        let judged = judge(&good, 2, &[]).expect("good");
        assert_eq!((judged.acknowledged, judged.refused, judged.unknown), (10, 2, 3));
        assert_eq!((judged.registers, judged.totals), (6, 2));
    }

    #[test]
    fn a_stale_read_of_a_register_is_found() {
        let stale = operations(vec![
            (Load::Registers, End::Ok, vec![Step::Write(1, 5)]),
            (Load::Registers, End::Ok, vec![Step::Write(1, 6)]),
            (Load::Registers, End::Ok, vec![Step::Read(1, Some(5))]),
        ]);
        assert!(broken(&stale, &[]).contains(&Judge::Registers));
    }

    #[test]
    fn write_skew_of_serializable_transactions_is_found() {
        let read = |key| Step::List(key, Some(vec![]));
        let mut skew = operations(vec![
            (Load::Serializable, End::Ok, vec![read(1), Step::Append(2, 7)]),
            (Load::Serializable, End::Ok, vec![read(2), Step::Append(1, 8)]),
            (
                Load::Serializable,
                End::Ok,
                vec![Step::List(1, Some(vec![8])), Step::List(2, Some(vec![7]))],
            ),
        ]);
        // The first two at the same time, so that time is not what is wrong.
        (skew[0].called_ns, skew[0].ended_ns) = (10, Some(29));
        (skew[1].called_ns, skew[1].ended_ns) = (10, Some(29));
        assert_eq!(broken(&skew, &[]), [Judge::Transactions, Judge::Outside]);
        for operation in &mut skew[..2] {
            operation.promise = Promise::Snapshot;
        }
        assert_eq!(broken(&skew, &[]), [], "snapshot isolation allows it");
    }

    #[test]
    fn lost_repeated_and_refused_appends_are_found() {
        for (end, there) in [
            (End::Ok, vec![]),
            (End::Ok, vec![1, 1]),
            (End::Failed, vec![1]),
            (End::Unknown, vec![1, 1]),
        ] {
            let wrong = operations(vec![
                (Load::Serializable, end, vec![Step::Append(3, 1)]),
                (Load::Serializable, End::Ok, vec![Step::List(3, Some(there))]),
            ]);
            assert!(broken(&wrong, &[]).contains(&Judge::Appends), "{end:?}");
        }
        let no_audit = operations(vec![(Load::Serializable, End::Ok, vec![Step::Append(3, 1)])]);
        assert!(broken(&no_audit, &[]).contains(&Judge::Appends));
    }

    #[test]
    fn money_made_lost_or_moved_by_nobody_is_found() {
        for balances in [vec![100, 101], vec![-1, 201], vec![90, 110]] {
            let mut wrong = operations(vec![
                (Load::Bank, End::Failed, vec![Step::Move(0, 1, 10, None)]),
                (Load::Bank, End::Ok, vec![Step::Balances(Some(balances))]),
            ]);
            wrong[1].promise = Promise::Fresh;
            assert_eq!(broken(&wrong, &[]), [Judge::Money]);
        }
    }

    #[test]
    fn an_index_behind_its_time_is_found() {
        let mut late = operations(vec![
            (Load::Bank, End::Ok, vec![Step::Move(0, 1, 1, Some(true))]),
            (Load::Bank, End::Ok, vec![Step::Move(1, 0, 1, Some(true))]),
        ]);
        assert_eq!(broken(&late, &[]), []);
        late[1].index = 1;
        assert_eq!(broken(&late, &[]), [Judge::Indexes]);
        late[1].steps = vec![Step::Balances(None)];
        late[1].promise = Promise::Fresh;
        assert_eq!(broken(&late, &[]), [], "a read may see the newest and no more");
        late[1].index = 0;
        assert_eq!(broken(&late, &[]), [Judge::Indexes]);
        late[1].ended_ns = None;
        late[1].end = End::Unknown;
        assert_eq!(broken(&late, &[]), []);
    }

    #[test]
    fn a_minority_that_acknowledges_is_found() {
        let alone = operations(vec![(Load::Registers, End::Ok, vec![Step::Write(1, 5)])]);
        let cut = |nodes, from_ns, to_ns| CutOff { nodes, from_ns, to_ns };
        assert_eq!(broken(&alone, &[cut(vec![0], 5, 25)]), [Judge::Minorities]);
        assert_eq!(broken(&alone, &[cut(vec![1], 5, 25), cut(vec![0], 12, 25)]), []);
    }
}
