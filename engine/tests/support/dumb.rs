//! The dumb model: rows in a map, sorting instead of indexes, and a certifier that compares each
//! transaction with every one after its snapshot.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use quorate_engine::Handle;
use quorate_schema::{ClassId, Reference, Value};

pub(crate) const DDL: &str = "
declare database model;
class Item {
    unsigned<1> k;
    signed<1> v;
    nullable string s;
    ref<Item> link;
    vector<ref<Item>> links;
    autoid n;
    signed<1> c;
    nullable unsigned<1> u;
    unique hash<k> by_k;
    unique tree<s> by_s;
    tree<v desc, s> by_vs;
    hash<v> by_v;
    unique tree<n> by_n;
    tree<link> by_link;
};
";

/// One index, as the model needs to know it.
pub(crate) struct Index {
    pub(crate) name: &'static str,
    pub(crate) unique: bool,
    pub(crate) ordered: bool,
    /// True if keys may hold numbers known only after the commit.
    pub(crate) late: bool,
    descending: &'static [bool],
    fields: &'static [&'static str],
}

pub(crate) const INDEXES: [Index; 6] = [
    Index {
        name: "by_k",
        unique: true,
        ordered: false,
        late: false,
        descending: &[false],
        fields: &["k"],
    },
    Index {
        name: "by_s",
        unique: true,
        ordered: true,
        late: false,
        descending: &[false],
        fields: &["s"],
    },
    Index {
        name: "by_vs",
        unique: false,
        ordered: true,
        late: false,
        descending: &[true, false],
        fields: &["v", "s"],
    },
    Index {
        name: "by_v",
        unique: false,
        ordered: false,
        late: false,
        descending: &[false],
        fields: &["v"],
    },
    Index {
        name: "by_n",
        unique: true,
        ordered: true,
        late: true,
        descending: &[false],
        fields: &["n"],
    },
    Index {
        name: "by_link",
        unique: false,
        ordered: true,
        late: true,
        descending: &[false],
        fields: &["link"],
    },
];

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Row {
    pub(crate) k: u64,
    pub(crate) v: i64,
    pub(crate) s: Option<String>,
    pub(crate) link: Option<Reference>,
    pub(crate) links: Vec<Reference>,
    /// None before the commit.
    pub(crate) n: Option<u64>,
    /// Can be added to.
    pub(crate) c: i64,
    /// Can be added to, unless null.
    pub(crate) u: Option<u64>,
}

/// What is done to a number without reading it: the field, which of add, min and max, the operand.
pub(crate) type Addition = (&'static str, u64, i64);

impl Row {
    pub(crate) fn value(&self, field: &str) -> Value {
        match field {
            "k" => Value::Unsigned(self.k),
            "v" => Value::Signed(self.v),
            "s" => self.s.clone().map_or(Value::Null, Value::Text),
            "link" => self.link.map_or(Value::Null, Value::Ref),
            "links" => Value::List(self.links.iter().copied().map(Value::Ref).collect()),
            "n" => Value::Unsigned(self.n.unwrap_or(u64::MAX)),
            "c" => Value::Signed(self.c),
            "u" => self.u.map_or(Value::Null, Value::Unsigned),
            other => panic!("no field {other}"),
        }
    }

    /// What a program writes: all but the autoid.
    pub(crate) fn values(&self) -> Vec<(&'static str, Value)> {
        let fields = ["k", "v", "s", "link", "links", "c", "u"];
        fields.map(|field| (field, self.value(field))).to_vec()
    }

    /// What a program reads.
    pub(crate) fn read(&self) -> Vec<Value> {
        let mut values: Vec<Value> =
            ["k", "v", "s", "link", "links"].map(|field| self.value(field)).to_vec();
        values.push(self.n.map_or(Value::Null, Value::Unsigned));
        values.extend([self.value("c"), self.value("u")]);
        values
    }

    /// False, and nothing done, if the number is null.
    pub(crate) fn add(&mut self, (field, operator, operand): Addition) -> bool {
        let before = if field == "c" { Some(self.c) } else { self.u.map(|u| u as i64) };
        let Some(before) = before else { return false };
        let after = match operator {
            0 => before + operand,
            1 => before.min(operand),
            _ => before.max(operand),
        };
        if field == "c" {
            self.c = after.clamp(-128, 127);
        } else {
            self.u = Some(after.clamp(0, 255) as u64);
        }
        true
    }

    pub(crate) fn key(&self, index: &Index) -> Vec<Value> {
        index.fields.iter().map(|field| self.value(field)).collect()
    }

    /// True if the key holds numbers known only after the commit.
    fn is_late(&self, index: &Index) -> bool {
        index.fields.contains(&"n") && self.n.is_none()
            || index.fields.contains(&"link") && self.link.is_some_and(|link| link.is_provisional())
    }
}

impl Index {
    /// Order of keys; a shorter one is compared as a prefix.
    pub(crate) fn order(&self, a: &[Value], b: &[Value]) -> Ordering {
        for ((a, b), descending) in a.iter().zip(b).zip(self.descending) {
            let order = a.key_order(b);
            if order != Ordering::Equal {
                return if *descending { order.reverse() } else { order };
            }
        }
        Ordering::Equal
    }

    pub(crate) fn contains(
        &self,
        low: &Bound<Vec<Value>>,
        high: &Bound<Vec<Value>>,
        key: &[Value],
    ) -> bool {
        let above = match low {
            Bound::Unbounded => true,
            Bound::Included(low) => self.order(key, low).is_ge(),
            Bound::Excluded(low) => self.order(key, low).is_gt(),
        };
        let below = match high {
            Bound::Unbounded => true,
            Bound::Included(high) => self.order(key, high).is_le(),
            Bound::Excluded(high) => self.order(key, high).is_lt(),
        };
        above && below
    }
}

/// Committed data at one index.
#[derive(Clone, Debug, Default)]
pub(crate) struct State {
    pub(crate) rows: BTreeMap<u64, (u64, Row)>,
    free: Vec<u64>,
    used_ids: u64,
    used_numbers: u64,
}

/// What a serializable transaction depends on.
#[derive(Clone, Debug)]
pub(crate) enum Read {
    Record(u64),
    Membership,
    Unique(&'static str, Value),
    Range(usize, Bound<Vec<Value>>, Bound<Vec<Value>>),
}

/// What a transaction sees: committed rows by id, then own new ones by number.
pub(crate) type View = BTreeMap<(bool, u64), (Handle, Row)>;

pub(crate) fn view(state: &State) -> View {
    let rows = state.rows.iter().map(|(id, (creation, row))| {
        let handle = Handle { class: ClassId(0), id: *id, creation: *creation };
        ((false, *id), (handle, row.clone()))
    });
    rows.collect()
}

pub(crate) fn place(handle: Handle) -> (bool, u64) {
    (handle.is_provisional(), handle.id)
}

/// The committed records that a transaction only added to, and what.
pub(crate) type Added = BTreeMap<u64, Vec<Addition>>;

/// What one transaction wrote, as the certifier of the model sees it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Writes {
    records: BTreeSet<u64>,
    added: BTreeSet<u64>,
    unique: Vec<(&'static str, Value)>,
    ordered: Vec<(usize, Vec<Value>)>,
    membership: bool,
}

impl Writes {
    /// From the rows at the snapshot and the view at the end.
    pub(crate) fn new(old: &State, view: &View, touched: &BTreeSet<u64>, added: &Added) -> Writes {
        let (records, added) = (touched.clone(), added.keys().copied().collect());
        let mut writes = Writes { records, added, ..Writes::default() };
        for id in touched {
            let old = &old.rows[id].1;
            match view.get(&(false, *id)) {
                Some((_, new)) => {
                    for (number, index) in INDEXES.iter().enumerate() {
                        if old.key(index) != new.key(index) {
                            writes.key(number, old);
                            writes.key(number, new);
                        }
                    }
                }
                None => {
                    writes.membership = true;
                    (0..INDEXES.len()).for_each(|number| writes.key(number, old));
                }
            }
        }
        for ((new, _), (_, row)) in view {
            if *new {
                writes.membership = true;
                (0..INDEXES.len()).for_each(|number| writes.key(number, row));
            }
        }
        writes
    }

    fn key(&mut self, number: usize, row: &Row) {
        let index = &INDEXES[number];
        if row.is_late(index) {
            self.membership = true;
            return;
        }
        let key = row.key(index);
        if index.unique && key[0] != Value::Null {
            self.unique.push((index.name, key[0].clone()));
        }
        self.ordered.push((number, key));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.records.is_empty() && self.added.is_empty() && !self.membership
    }

    /// True if both added to one record.
    pub(crate) fn adds_with(&self, other: &Writes) -> bool {
        !self.added.is_disjoint(&other.added)
    }

    /// True if a transaction with these writes, new references and reads cannot follow `earlier`,
    /// which it did not see.
    pub(crate) fn conflicts(
        &self,
        targets: &BTreeSet<u64>,
        reads: &[Read],
        earlier: &Writes,
    ) -> bool {
        !self.records.is_disjoint(&earlier.records)
            || !self.records.is_disjoint(&earlier.added)
            || !self.added.is_disjoint(&earlier.records)
            || !targets.is_disjoint(&earlier.records)
            || self.unique.iter().any(|key| earlier.unique.contains(key))
            || reads.iter().any(|read| earlier.changes(read))
    }

    fn changes(&self, read: &Read) -> bool {
        match read {
            Read::Record(id) => self.records.contains(id) || self.added.contains(id),
            Read::Membership => self.membership,
            Read::Unique(name, value) => self.unique.contains(&(name, value.clone())),
            Read::Range(number, low, high) => {
                let (low, high) = (cut_bound(low), cut_bound(high));
                let inside = |key: &[Value]| INDEXES[*number].contains(&low, &high, &cut(key));
                self.ordered.iter().any(|(index, key)| index == number && inside(key))
            }
        }
    }
}

/// The certifier compares the first 16 bytes of keys. Only references, 17 bytes, are longer here:
/// they lose the lowest byte of their creation index, and bounds made of them are included.
fn cut(key: &[Value]) -> Vec<Value> {
    let cut = |value: &Value| match value {
        Value::Ref(Reference { id, creation }) => {
            Value::Ref(Reference { id: *id, creation: creation >> 8 })
        }
        other => other.clone(),
    };
    key.iter().map(cut).collect()
}

fn cut_bound(bound: &Bound<Vec<Value>>) -> Bound<Vec<Value>> {
    match bound {
        Bound::Included(key) | Bound::Excluded(key) if matches!(key[0], Value::Ref(_)) => {
            Bound::Included(cut(key))
        }
        other => other.clone(),
    }
}

impl State {
    /// The state after a transaction, whose provisional numbers are given places here.
    pub(crate) fn apply(
        &self,
        index: u64,
        view: &View,
        touched: &BTreeSet<u64>,
        added: &Added,
    ) -> State {
        let mut next = self.clone();
        for (id, additions) in added {
            let row = &mut next.rows.get_mut(id).unwrap().1;
            assert!(additions.iter().all(|addition| row.add(*addition)), "null was added to");
        }
        for id in touched {
            if !view.contains_key(&(false, *id)) {
                next.rows.remove(id);
                next.free.push(*id);
            }
        }
        let mut places = BTreeMap::new();
        for (new, number) in view.keys() {
            if *new {
                let id = next.free.pop().unwrap_or_else(|| {
                    next.used_ids += 1;
                    next.used_ids
                });
                places.insert(*number, id);
            }
        }
        let lasting = |row: &Row| {
            let mut row = row.clone();
            let links = row.link.iter_mut().chain(&mut row.links);
            for link in links.filter(|link| link.is_provisional()) {
                *link = Reference { id: places[&link.id], creation: index };
            }
            row
        };
        for id in touched {
            if let Some((handle, row)) = view.get(&(false, *id)) {
                next.rows.insert(*id, (handle.creation, lasting(row)));
            }
        }
        for (number, id) in &places {
            next.used_numbers += 1;
            let row = Row { n: Some(next.used_numbers), ..lasting(&view[&(true, *number)].1) };
            next.rows.insert(*id, (index, row));
        }
        next
    }
}

/// The rows of a view in the order of an index.
pub(crate) fn sorted(view: &View, index: &Index) -> Vec<(Handle, Row)> {
    let mut rows: Vec<(Handle, Row)> = view.values().cloned().collect();
    rows.sort_by(|(a_handle, a), (b_handle, b)| {
        let order = index.order(&a.key(index), &b.key(index));
        order.then(place(*a_handle).cmp(&place(*b_handle)))
    });
    rows
}
