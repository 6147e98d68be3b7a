//! The shortest way in: one node, one class, a few records.
//!
//! Shows: a schema in DDL, opening a database in memory, writing and reading in transactions,
//! finding by a unique key, walking an index.
#![allow(clippy::print_stdout, reason = "a sample talks to its reader")]

use std::error::Error;

use quorate::{Access, Database, Dictionary, Isolation, Options, Value};
use quorate_samples::AIRPORTS;

const SCHEMA: &str = "
    declare database quickstart;

    class Airport {
        string icao;
        string name;
        string country;

        unique hash<icao> by_icao[100];
        tree<country, name> by_country;
    };
";

fn main() -> Result<(), Box<dyn Error>> {
    let database = Database::open("quickstart", Dictionary::parse(SCHEMA)?, Options::default())?;
    let mut connection = database.connect()?;

    // A transaction writes into a private write set; all of it is committed, or nothing.
    let transaction = connection.begin(Access::ReadWrite, Isolation::Snapshot)?;
    for (icao, name, country) in AIRPORTS {
        transaction.insert_values(
            "Airport",
            &[("icao", icao.into()), ("name", name.into()), ("country", country.into())],
        )?;
    }
    let committed = transaction.commit()?;
    println!("{} airports are committed at index {}", AIRPORTS.len(), committed.index);

    // `transact` begins, runs, commits, and tries again after a conflict.
    connection.transact(Isolation::Snapshot, |transaction| {
        let key = [Value::from("LSZH")];
        if let Some((airport, _)) = transaction.find_record("Airport", "by_icao", &key)? {
            transaction.update_fields(airport, &[("name", "Kloten Airport".into())])?;
        }
        Ok(())
    })?;

    // Readers see the state as it was when they began, whatever is committed meanwhile.
    let transaction = connection.begin(Access::ReadOnly, Isolation::Snapshot)?;
    for (_, airport) in transaction.cursor("Airport", "by_country")?.rows() {
        println!("{:?} {:?}", airport.value("country")?, airport.value("name")?);
    }
    let german =
        transaction.cursor("Airport", "by_country")?.prefix(&["DE".into()])?.rows().count();
    println!("{german} of them are in DE");
    Ok(())
}
