//! Classes as Rust structs: no names in strings, no values to take apart.
//!
//! Shows: `#[derive(Class)]` with indexes, an enum, an optional field, an autoid and a typed
//! reference; writing and reading whole structs.
#![allow(clippy::print_stdout, reason = "a sample talks to its reader")]

use std::error::Error;

use quorate::{Class, Database, Dictionary, Enum, Isolation, Options, Ref};

#[derive(Clone, Copy, Debug, PartialEq, Enum)]
enum Surface {
    Asphalt,
    Grass,
    Water,
}

#[derive(Clone, Debug, PartialEq, Class)]
#[class(index(hash(icao), unique, name = "by_icao"))]
struct Airport {
    icao: String,
    iata: Option<String>,
    elevation_ft: f64,
}

#[derive(Clone, Debug, PartialEq, Class)]
#[class(index(tree(airport, length_m desc), name = "by_airport"))]
struct Runway {
    /// Given out at commit, never again.
    #[class(autoid)]
    number: u64,
    airport: Ref<Airport>,
    length_m: u32,
    surface: Surface,
}

fn main() -> Result<(), Box<dyn Error>> {
    // The dictionary is the same as the one that the equivalent DDL gives.
    let dictionary = Dictionary::builder("typed").class::<Airport>().class::<Runway>().build()?;
    println!("{}", dictionary.to_ddl());
    let database = Database::open("typed", dictionary, Options::default())?;

    database.transact(Isolation::Snapshot, |transaction| {
        let airport =
            Airport { icao: "EDDM".into(), iata: Some("MUC".into()), elevation_ft: 1487.0 };
        // A reference to a record of the same transaction is good at once.
        let munich = transaction.insert(&airport)?;
        for (length_m, surface) in [(800, Surface::Grass), (4000, Surface::Asphalt)] {
            transaction.insert(&Runway {
                number: 0,
                airport: Ref::to(munich.reference()),
                length_m,
                surface,
            })?;
        }
        Ok(())
    })?;

    database.transact(Isolation::Snapshot, |transaction| {
        let found = transaction.find::<Airport>("by_icao", &["EDDM".into()])?;
        let (munich, airport) =
            found.ok_or("committed above").map_err(quorate::Error::application)?;
        println!("{airport:?}");
        let key = [munich.reference().into()];
        for (_, record) in transaction.cursor("Runway", "by_airport")?.prefix(&key)?.rows() {
            let runway: Runway = record.to()?;
            println!("runway {}: {} m of {:?}", runway.number, runway.length_m, runway.surface);
        }
        Ok(())
    })?;
    Ok(())
}
