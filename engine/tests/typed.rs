//! Records as Rust types.
#![allow(clippy::unwrap_used)]

use quorate_engine::{Access, Database, DatabaseParams, Error, Isolation};
use quorate_schema::{Class, Dictionary, Ref, Value};

#[derive(Class, Clone, Debug, PartialEq)]
#[class(crate = "quorate_schema", index(unique, hash(icao)))]
struct Airport {
    #[class(autoid)]
    number: u64,
    icao: String,
    iata: Option<String>,
}

#[derive(Class, Clone, Debug, PartialEq)]
#[class(crate = "quorate_schema", index(tree(airport, ident)))]
struct Runway {
    airport: Ref<Airport>,
    ident: String,
}

fn open() -> Database {
    let dictionary = Dictionary::builder("air").class::<Airport>().class::<Runway>();
    Database::open("air", dictionary.build().unwrap(), DatabaseParams::default()).unwrap()
}

fn vienna() -> Airport {
    Airport { number: 0, icao: "LOWW".to_owned(), iata: Some("VIE".to_owned()) }
}

#[test]
fn records_are_rust_values() {
    let db = open();
    let mut con = db.connect().unwrap();
    let tx = con.begin(Access::ReadWrite, Isolation::Snapshot).unwrap();
    let airport = tx.insert(&vienna()).unwrap();
    let runway = Runway { airport: Ref::to(airport.reference()), ident: "11".to_owned() };
    let runway = tx.insert(&runway).unwrap();
    assert!(matches!(tx.get::<Airport>(airport), Err(Error::AutoidPending { .. })));
    tx.update(airport, &Airport { iata: None, ..vienna() }).unwrap();
    let committed = tx.commit().unwrap();

    let (airport, runway) =
        (committed.resolve(airport).unwrap(), committed.resolve(runway).unwrap());
    let tx = con.begin(Access::ReadWrite, Isolation::Snapshot).unwrap();
    let read: Airport = tx.get(airport).unwrap().unwrap();
    assert_eq!(read, Airport { number: 1, iata: None, ..vienna() });
    let key = [Value::Text("LOWW".to_owned())];
    assert_eq!(tx.find::<Airport>("by_icao", &key).unwrap(), Some((airport, read.clone())));
    let runway: Runway = tx.get(runway).unwrap().unwrap();
    assert_eq!(tx.follow(runway.airport).unwrap(), Some((airport, read.clone())));
    tx.update(airport, &Airport { icao: "LOWS".to_owned(), ..read }).unwrap();
    tx.update(airport, &vienna()).unwrap();
    tx.delete(airport).unwrap();
    assert_eq!(tx.follow(runway.airport).unwrap(), None);
    assert_eq!(tx.follow(Ref::<Airport>::none()).unwrap(), None);
}

#[test]
fn a_record_of_another_class_is_refused() {
    let db = open();
    let error = db.transact(Isolation::Snapshot, |tx| {
        let airport = tx.insert(&vienna())?;
        tx.get::<Runway>(airport)
    });
    assert!(matches!(error, Err(Error::WrongClass { .. })), "{error:?}");
    assert_eq!(db.statistics().classes[0].records, 0);
}

#[test]
fn a_type_that_is_not_in_the_dictionary_is_refused() {
    #[derive(Class)]
    #[class(crate = "quorate_schema", name = "Airport")]
    struct Other {
        icao: String,
    }
    #[derive(Class)]
    #[class(crate = "quorate_schema")]
    struct Airprot {
        icao: String,
    }
    let db = open();
    let other = Other { icao: "LOWW".to_owned() };
    let error = db.transact(Isolation::Snapshot, |tx| tx.insert(&other));
    assert!(matches!(error, Err(Error::Value(_))), "{error:?}");
    let misspelled = Airprot { icao: "LOWW".to_owned() };
    let error = db.transact(Isolation::Snapshot, |tx| tx.insert(&misspelled)).unwrap_err();
    assert_eq!(error.to_string(), "there is no class Airprot; did you mean Airport?");
}
