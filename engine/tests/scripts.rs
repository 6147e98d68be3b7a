//! Golden scripts: one anomaly or rule a file, in `tests/scripts`, as commands and what they print.
//!
//! A prefix names the transaction (`a: begin serializable`). Handles have names, given by `as=`
//! at the insert, or by `find`; a name is also the value of a `ref` field. Regenerate the expected
//! output with `UPDATE_GOLDENFILES=1`, and read the difference.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fmt::Write as _;
use std::ops::Bound;

use goldenscript::{Argument, Command, Context, Runner};
use quorate_engine::{Access, Database, DatabaseParams, Handle, Isolation, Record, Transaction};
use quorate_schema::{Dictionary, Type, Value};

const DDL: &str = "
declare database bank;
class Account {
    unsigned<4> id;
    signed<8> balance;
    nullable string owner;
    unique hash<id> by_id;
    tree<balance> by_balance;
    unique tree<owner> by_owner;
};
class Payment {
    autoid number;
    ref<Account> account;
    signed<8> amount;
    unique tree<number> by_number;
    tree<account, amount desc> by_account;
};
local class Note {
    string text;
    ref<Account> about;
    unique tree<text> by_text;
};
class Tally {
    signed<1> votes;
    string name;
};
";

macro_rules! scripts {
    ($($name:ident),* $(,)?) => {
        const NAMES: &[&str] = &[$(stringify!($name)),*];
        $(#[test]
        fn $name() {
            let path = concat!("tests/scripts/", stringify!($name));
            goldenscript::run(&mut Bank::new(), path).unwrap();
        })*
    };
}

scripts! {
    adders_commute,
    autoid_never_reused,
    cursor_own_writes,
    delete_update_conflict,
    dirty_read,
    dirty_write,
    handle_of_reused_place,
    local_classes,
    long_fork,
    lost_update,
    names_and_values,
    non_repeatable_read,
    own_writes,
    phantom,
    phantom_update_into_range,
    phantom_whole_class,
    read_only_anomaly,
    read_skew,
    reference_target_deleted,
    rollback,
    unique_key_freed,
    unique_null,
    unique_race,
    write_skew,
    write_skew_on_absence,
}

#[test]
fn every_script_is_run() {
    let files = std::fs::read_dir("tests/scripts").unwrap();
    let files: BTreeSet<String> =
        files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    let names: BTreeSet<String> = NAMES.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(files, names);
}

struct Bank {
    db: Database,
    open: BTreeMap<String, Transaction<'static>>,
    handles: BTreeMap<String, Handle>,
    /// Names given in each open transaction.
    given: BTreeMap<String, Vec<String>>,
}

type Output = Result<String, Box<dyn Error>>;

impl Runner for Bank {
    type Command = Command;

    fn run(&mut self, command: &Command, context: &Context) -> Output {
        let name = context.prefix.clone().unwrap_or_default();
        match command.name.as_str() {
            "begin" => self.begin(name, command),
            "commit" => self.commit(&name),
            "rollback" => {
                self.given.remove(&name);
                self.take(&name)?.rollback();
                Ok(String::new())
            }
            "state" => self.state(),
            _ => self.operate(&name, command),
        }
    }
}

impl Bank {
    fn new() -> Bank {
        let params = DatabaseParams::default().with_max_connections(1000);
        let db = Database::open("bank", Dictionary::parse(DDL).unwrap(), params).unwrap();
        Bank { db, open: BTreeMap::new(), handles: BTreeMap::new(), given: BTreeMap::new() }
    }

    fn begin(&mut self, name: String, command: &Command) -> Output {
        let mut access = Access::ReadWrite;
        let mut isolation = Isolation::Snapshot;
        for argument in &command.args {
            match value_of(argument) {
                "serializable" => isolation = Isolation::Serializable,
                "readonly" => access = Access::ReadOnly,
                other => return Err(format!("unknown mode {other}").into()),
            }
        }
        // A connection lives as long as its transaction, here as long as the test.
        let connection = Box::leak(Box::new(self.db.connect()?));
        self.open.insert(name, connection.begin(access, isolation)?);
        Ok(String::new())
    }

    fn take(&mut self, name: &str) -> Result<Transaction<'static>, Box<dyn Error>> {
        self.open.remove(name).ok_or_else(|| format!("no transaction {name:?}").into())
    }

    fn commit(&mut self, name: &str) -> Output {
        let given = self.given.remove(name).unwrap_or_default();
        let committed = self.take(name)?.commit()?;
        let mut output = format!("index {}", committed.index);
        for name in given {
            let provisional = self.handles[&name];
            match committed.resolve(provisional) {
                Some(handle) => {
                    self.handles.insert(name.clone(), handle);
                    write!(output, ", {name} is record {}", handle.id)?;
                }
                None => write!(output, ", {name} is gone")?,
            }
            if let Some(autoid) = committed.autoid(provisional) {
                write!(output, " with autoid {autoid}")?;
            }
        }
        Ok(output)
    }

    fn state(&mut self) -> Output {
        self.db.check()?;
        let mut connection = self.db.connect()?;
        let tx = connection.begin(Access::ReadOnly, Isolation::Snapshot)?;
        let mut output = String::new();
        for class in self.db.dictionary().classes() {
            for (handle, record) in tx.scan(&class.name)? {
                writeln!(output, "#{}/{} {}", handle.id, handle.creation, show(&record))?;
            }
        }
        Ok(output)
    }

    fn operate(&mut self, name: &str, command: &Command) -> Output {
        let Some(tx) = self.open.get(name) else {
            return Err(format!("no transaction {name:?}").into());
        };
        let mut args = command.consume_args();
        let mut next = || args.next_pos().map(str::to_owned).ok_or("too few arguments");
        let mut named = None;
        let output = match command.name.as_str() {
            "insert" => {
                let class = next()?;
                let values = self.values(&class, &command.args)?;
                let values: Vec<(&str, Value)> =
                    values.iter().map(|(field, value)| (field.as_str(), value.clone())).collect();
                let handle = tx.insert_values(&class, &values)?;
                named = as_name(&command.args).map(|name| (name, handle));
                String::new()
            }
            "update" => {
                let handle = self.handle(&next()?)?;
                let class = self.db.dictionary().classes()[handle.class.0 as usize].name.clone();
                let values = self.values(&class, &command.args)?;
                let values: Vec<(&str, Value)> =
                    values.iter().map(|(field, value)| (field.as_str(), value.clone())).collect();
                tx.update_fields(handle, &values)?;
                String::new()
            }
            operator @ ("add" | "min" | "max") => {
                let handle = self.handle(&next()?)?;
                let (field, number) = (next()?, next()?.parse::<i64>()?);
                match operator {
                    "add" => tx.add(handle, &field, number)?,
                    "min" => tx.min(handle, &field, number)?,
                    _ => tx.max(handle, &field, number)?,
                }
                String::new()
            }
            "delete" => {
                tx.delete(self.handle(&next()?)?)?;
                String::new()
            }
            "get" => show_found(tx.record(self.handle(&next()?)?)?.as_ref()),
            "value" => {
                let record = tx.record(self.handle(&next()?)?)?.ok_or("no such record")?;
                format!("{:?}", record.value(&next()?)?)
            }
            "find" => {
                let (class, index) = (next()?, next()?);
                let key = self.key(&class, &index, &command.args[2..])?;
                let found = tx.find_record(&class, &index, &key)?;
                if let (Some(name), Some((handle, _))) = (as_name(&command.args), &found) {
                    named = Some((name, *handle));
                }
                show_found(found.as_ref().map(|(_, record)| record))
            }
            "scan" => tx.scan(&next()?)?.map(|(_, record)| show(&record) + "\n").collect(),
            "walk" => {
                let (class, index) = (next()?, next()?);
                self.walk(tx, &class, &index, &command.args)?
            }
            other => return Err(format!("unknown command {other}").into()),
        };
        if let Some((given, handle)) = named {
            self.handles.insert(given.clone(), handle);
            if handle.is_provisional() {
                self.given.entry(name.to_owned()).or_default().push(given);
            }
        }
        Ok(output)
    }

    /// `walk Class index [low=v] [high=v] [after=v] [below=v] [reverse]`
    fn walk(
        &self,
        tx: &Transaction<'_>,
        class: &str,
        index: &str,
        args: &[Argument],
    ) -> Result<String, Box<dyn Error>> {
        let bound = |name: &str| -> Result<Option<Vec<Value>>, Box<dyn Error>> {
            let found = args.iter().find(|argument| key_of(argument) == Some(name));
            found.map(|found| self.key(class, index, std::slice::from_ref(found))).transpose()
        };
        let (low, after, high, below) =
            (bound("low")?, bound("after")?, bound("high")?, bound("below")?);
        let low = match (&low, &after) {
            (Some(low), _) => Bound::Included(&low[..]),
            (_, Some(after)) => Bound::Excluded(&after[..]),
            _ => Bound::Unbounded,
        };
        let high = match (&high, &below) {
            (Some(high), _) => Bound::Included(&high[..]),
            (_, Some(below)) => Bound::Excluded(&below[..]),
            _ => Bound::Unbounded,
        };
        let mut cursor = tx.cursor(class, index)?;
        if low != Bound::Unbounded || high != Bound::Unbounded {
            cursor = cursor.range(low, high)?;
        }
        let mut output = String::new();
        if args.iter().any(|argument| value_of(argument) == "reverse") {
            let mut found = cursor.last();
            while let Some((_, record)) = found {
                writeln!(output, "{}", show(&record))?;
                found = cursor.prev();
            }
        } else {
            for (_, record) in cursor.rows() {
                writeln!(output, "{}", show(&record))?;
            }
        }
        Ok(output)
    }

    fn handle(&self, name: &str) -> Result<Handle, Box<dyn Error>> {
        self.handles.get(name).copied().ok_or_else(|| format!("no record {name:?}").into())
    }

    fn values(
        &self,
        class: &str,
        args: &[Argument],
    ) -> Result<Vec<(String, Value)>, Box<dyn Error>> {
        let class = self.db.dictionary().class_by_name(class);
        let mut values = Vec::new();
        for argument in args {
            let Some(field) = key_of(argument).filter(|key| *key != "as") else { continue };
            let ty = class.and_then(|class| class.field(field)).map(|(_, field)| &field.ty);
            values.push((field.to_owned(), self.value(ty, value_of(argument))?));
        }
        Ok(values)
    }

    fn key(
        &self,
        class: &str,
        index: &str,
        args: &[Argument],
    ) -> Result<Vec<Value>, Box<dyn Error>> {
        let class = self.db.dictionary().class_by_name(class);
        let index = class.and_then(|class| class.index(index));
        let args = args.iter().filter(|argument| key_of(argument) != Some("as"));
        let mut values = Vec::new();
        for (position, argument) in args.enumerate() {
            let part = index.and_then(|index| index.parts.get(position));
            let field = part.and_then(|part| Some(&class?.fields[part.path[0].0 as usize].ty));
            values.push(self.value(field, value_of(argument))?);
        }
        Ok(values)
    }

    fn value(&self, ty: Option<&Type>, word: &str) -> Result<Value, Box<dyn Error>> {
        Ok(match ty {
            _ if word == "null" => Value::Null,
            Some(Type::Ref(_)) => Value::Ref(self.handle(word)?.reference()),
            Some(Type::Unsigned(_) | Type::Autoid) => Value::Unsigned(word.parse()?),
            Some(Type::Signed(_)) => Value::Signed(word.parse()?),
            _ => Value::Text(word.to_owned()),
        })
    }
}

fn key_of(argument: &Argument) -> Option<&str> {
    match argument {
        Argument::KeyValue(key, _) => Some(key),
        _ => None,
    }
}

fn value_of(argument: &Argument) -> &str {
    match argument {
        Argument::Positional(value) | Argument::KeyValue(_, value) => value,
        other => panic!("an argument of a new kind: {other:?}"),
    }
}

fn as_name(args: &[Argument]) -> Option<String> {
    let found = args.iter().find(|argument| key_of(argument) == Some("as"))?;
    Some(value_of(found).to_owned())
}

fn show_found(record: Option<&Record>) -> String {
    record.map_or("nothing".to_owned(), show)
}

fn show(record: &Record) -> String {
    let class = record.class();
    let mut output = class.name.clone();
    for (field, value) in class.fields.iter().zip(record.view().values()) {
        let value = match value {
            Value::Null => "null".to_owned(),
            Value::Unsigned(number) => number.to_string(),
            Value::Signed(number) => number.to_string(),
            Value::Text(text) => text,
            Value::Ref(reference) if reference.is_provisional() => "#new".to_owned(),
            Value::Ref(reference) => format!("#{}/{}", reference.id, reference.creation),
            other => format!("{other:?}"),
        };
        write!(output, " {}={value}", field.name).unwrap();
    }
    output
}
