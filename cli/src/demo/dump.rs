//! What a node shows for the check: its state hash, all its records, and a walk along every index.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use quorate::schema::{ClassDef, IndexDef, IndexKind};
use quorate::{Access, Database, Error, Handle, Isolation, Transaction, Value};

use super::data::Airport;
use super::node::{Fatal, Reporter};
use super::protocol::{IndexWalk, Operation, Record, Report};

/// The visible index and the state hash at it, in hexadecimal.
pub(super) fn state(database: &Database) -> Result<(u64, String), Fatal> {
    // The hash belongs to the newest state: no index may pass between the two answers.
    loop {
        let before = database.visible_index();
        let hash = database.state_hash();
        if database.visible_index() == before {
            return Ok((before.0, format!("{hash:032x}")));
        }
    }
}

/// Reports all records and walks all indexes, at one snapshot; then lets the engine check itself.
pub(super) fn dump(
    database: &Database,
    reporter: &Reporter,
) -> Result<(Vec<IndexWalk>, Option<String>), Fatal> {
    let mut connection = database.connect().map_err(Fatal::new)?;
    let transaction = connection
        .begin(Access::ReadOnly, Isolation::Snapshot)
        .map_err(|error| Fatal::new(Error::from(error)))?;
    let dictionary = super::data::dictionary();
    let mut walks = Vec::new();
    for class in dictionary.classes() {
        let records = scan(&transaction, class).map_err(Fatal::new)?;
        for values in records.values() {
            let record = to_record(&class.name, values)?;
            reporter.say_later(&Report::Record(record));
        }
        for index in &class.indexes {
            walks.push(walk(&transaction, class, index, &records).map_err(Fatal::new)?);
        }
    }
    drop(transaction);
    Ok((walks, database.check().err().map(|damage| damage.to_string())))
}

/// All records of a class: values by handle.
type Records = BTreeMap<Handle, Vec<Value>>;

fn scan(transaction: &Transaction<'_>, class: &ClassDef) -> Result<Records, Error> {
    transaction
        .scan(&class.name)?
        .map(|(handle, record)| Ok((handle, record.view().values())))
        .collect()
}

fn walk(
    transaction: &Transaction<'_>,
    class: &ClassDef,
    index: &IndexDef,
    records: &Records,
) -> Result<IndexWalk, Error> {
    let (entries, mut problem) = walk_both_ways(transaction, class, index, records)?;
    if index.kind == IndexKind::Hash {
        problem = problem.or(look_up_all(transaction, class, index, records)?);
    }
    Ok(IndexWalk {
        class: class.name.clone(),
        index: index.name.clone(),
        records: records.len() as u64,
        entries,
        problem,
    })
}

/// Walks an index forwards and backwards: both must meet each record once, in a tree in the order
/// of the keys.
fn walk_both_ways(
    transaction: &Transaction<'_>,
    class: &ClassDef,
    index: &IndexDef,
    records: &Records,
) -> Result<(u64, Option<String>), Error> {
    let mut cursor = transaction.cursor(&class.name, &index.name)?;
    let mut forwards: Vec<Handle> = Vec::new();
    let mut problem = None;
    let mut step = cursor.first();
    while let Some((handle, _)) = step {
        if let (IndexKind::Tree, Some(previous)) = (index.kind, forwards.last()) {
            let order = key_order(index, records.get(previous), records.get(&handle));
            if order == Ordering::Greater || (order == Ordering::Equal && index.unique) {
                problem.get_or_insert_with(|| format!("{previous} stands before {handle}"));
            }
        }
        forwards.push(handle);
        step = cursor.next();
    }
    let mut backwards: Vec<Handle> = Vec::new();
    let mut step = cursor.last();
    while let Some((handle, _)) = step {
        backwards.push(handle);
        step = cursor.prev();
    }
    backwards.reverse();
    if backwards != forwards {
        problem.get_or_insert_with(|| "backwards it is another walk than forwards".to_owned());
    }
    let distinct: BTreeSet<&Handle> = forwards.iter().collect();
    if distinct.len() != forwards.len() || distinct.iter().any(|h| !records.contains_key(h)) {
        problem.get_or_insert_with(|| "it leads to other records than a scan".to_owned());
    }
    Ok((forwards.len() as u64, problem))
}

/// Looks up every key of a hash index: it must lead to the records that have it.
fn look_up_all(
    transaction: &Transaction<'_>,
    class: &ClassDef,
    index: &IndexDef,
    records: &Records,
) -> Result<Option<String>, Error> {
    let mut by_key: BTreeMap<String, (Vec<Value>, BTreeSet<Handle>)> = BTreeMap::new();
    for (handle, values) in records {
        let key: Vec<Value> = key(index, values).cloned().collect();
        let handles = &mut by_key.entry(format!("{key:?}")).or_insert((key, BTreeSet::new())).1;
        handles.insert(*handle);
    }
    for (key, expected) in by_key.into_values() {
        let rows = transaction.cursor(&class.name, &index.name)?.prefix(&key)?.rows();
        let found: Vec<Handle> = rows.map(|(handle, _)| handle).collect();
        if found.len() != expected.len() || !found.iter().all(|h| expected.contains(h)) {
            let (found, expected) = (found.len(), expected.len());
            return Ok(Some(format!("{key:?} leads to {found} records, not {expected}")));
        }
    }
    Ok(None)
}

/// The values of a record that an index is over. The demo's indexes are over plain fields.
fn key<'a>(index: &'a IndexDef, values: &'a [Value]) -> impl Iterator<Item = &'a Value> {
    index.parts.iter().map(|part| &values[part.path[0].0 as usize])
}

fn key_order(index: &IndexDef, a: Option<&Vec<Value>>, b: Option<&Vec<Value>>) -> Ordering {
    let (Some(a), Some(b)) = (a, b) else { return Ordering::Equal };
    let parts = index.parts.iter().zip(key(index, a).zip(key(index, b)));
    parts
        .map(|(part, (a, b))| if part.descending { b.key_order(a) } else { a.key_order(b) })
        .find(|order| order.is_ne())
        .unwrap_or(Ordering::Equal)
}

/// A record by the names of its class's fields, as the demo sends it.
fn to_record(class: &str, values: &[Value]) -> Result<Record, Fatal> {
    let mut fields = Fields { class, values: values.iter() };
    Ok(match class {
        "Airport" => Record::Airport(Airport {
            icao: fields.text()?,
            iata: fields.text()?,
            name: fields.text()?,
            city: fields.text()?,
            subd: fields.text()?,
            country: fields.text()?,
            elevation: fields.double()?,
            lat: fields.double()?,
            lon: fields.double()?,
            tz: fields.text()?,
            lid: fields.text()?,
        }),
        "Counter" => Record::Counter { number: fields.small()?, value: fields.unsigned()? },
        "Account" => Record::Account { number: fields.small()?, balance: fields.signed()? },
        "Posting" => {
            let (node, number) = (fields.small()?, fields.unsigned()?);
            let (kind, source, target) = (fields.kind()?, fields.small()?, fields.small()?);
            let amount = fields.unsigned()?;
            let operation = if kind == 0 {
                Operation::Increment { counter: source, amount }
            } else {
                Operation::Transfer { from: source, to: target, amount }
            };
            Record::Posting { node, number, operation }
        }
        other => return Err(Fatal::new(format_args!("class {other} is not of the demo"))),
    })
}

/// The fields of a record, taken in order of declaration.
struct Fields<'a> {
    class: &'a str,
    values: std::slice::Iter<'a, Value>,
}

impl Fields<'_> {
    fn take<T>(&mut self, get: impl FnOnce(&Value) -> Option<T>) -> Result<T, Fatal> {
        let value = self.values.next();
        value.and_then(get).ok_or_else(|| {
            Fatal::new(format_args!("a record of {} holds {value:?} where it cannot", self.class))
        })
    }

    fn text(&mut self) -> Result<String, Fatal> {
        self.take(|value| if let Value::Text(text) = value { Some(text.clone()) } else { None })
    }

    fn double(&mut self) -> Result<f64, Fatal> {
        self.take(|value| if let Value::Double(number) = value { Some(*number) } else { None })
    }

    fn signed(&mut self) -> Result<i64, Fatal> {
        self.take(|value| if let Value::Signed(number) = value { Some(*number) } else { None })
    }

    fn unsigned(&mut self) -> Result<u64, Fatal> {
        self.take(|value| if let Value::Unsigned(number) = value { Some(*number) } else { None })
    }

    fn small(&mut self) -> Result<u32, Fatal> {
        self.take(|value| match value {
            Value::Unsigned(number) => u32::try_from(*number).ok(),
            _ => None,
        })
    }

    fn kind(&mut self) -> Result<i32, Fatal> {
        self.take(|value| if let Value::Enum(number) = value { Some(*number) } else { None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read_by_position_and_wrong_ones_refused() {
        let values = [Value::Unsigned(2), Value::Unsigned(9)];
        let record = to_record("Counter", &values).ok().expect("right");
        assert_eq!(record, Record::Counter { number: 2, value: 9 });
        assert!(to_record("Counter", &values[..1]).is_err());
        assert!(to_record("Counter", &[Value::Null, Value::Null]).is_err());
        assert!(to_record("Nothing", &values).is_err());
    }
}
