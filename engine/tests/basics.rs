//! The plain path: what a program writes, it and others read.
#![allow(clippy::unwrap_used)]

use quorate_engine::{Access, Database, DatabaseParams, Error, Isolation};
use quorate_schema::{Dictionary, Value};

const DDL: &str = "
declare database air;
class Airport {
    string icao;
    string name;
    string country;
    unsigned<4> traffic;
    nullable signed<4> elevation;
    autoid number;
    unique tree<icao> by_icao;
    tree<country, name> by_country;
    hash<traffic> by_traffic;
    unique tree<number> by_number;
};
class Runway {
    ref<Airport> airport;
    string ident;
    unique tree<airport, ident> by_airport;
};
local class Note { string text; tree<text> by_text; };
";

fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}

fn open() -> Database {
    Database::open("air", Dictionary::parse(DDL).unwrap(), DatabaseParams::default()).unwrap()
}

#[test]
fn what_is_committed_is_read() {
    let db = open();
    let mut con = db.connect().unwrap();
    let tx = con.begin(Access::ReadWrite, Isolation::Serializable).unwrap();
    let vienna =
        tx.insert_values("Airport", &[("icao", text("LOWW")), ("country", text("AT"))]).unwrap();
    let runway = tx
        .insert_values(
            "Runway",
            &[("airport", Value::Ref(vienna.reference())), ("ident", text("11"))],
        )
        .unwrap();
    let record = tx.record(vienna).unwrap().unwrap();
    assert!(matches!(record.value("number"), Err(Error::AutoidPending { .. })));
    let committed = tx.commit().unwrap();
    db.check().unwrap();
    assert_eq!(committed.autoid(vienna), Some(1));
    let tx = con.begin(Access::ReadOnly, Isolation::Snapshot).unwrap();
    let (handle, record) = tx.find_record("Airport", "by_icao", &[text("LOWW")]).unwrap().unwrap();
    assert_eq!(committed.resolve(vienna), Some(handle));
    assert_eq!(record.value("country").unwrap(), text("AT"));
    assert_eq!(record.value("number").unwrap(), Value::Unsigned(1));
    let runway = committed.resolve(runway).unwrap();
    let runway = tx.record(runway).unwrap().unwrap();
    assert_eq!(runway.value("airport").unwrap(), Value::Ref(handle.reference()));
}
