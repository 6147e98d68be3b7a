//! The demo's data: the airports, the counters, the accounts, and the classes that hold them.
//!
//! What a row looks like in a given revision is a function of the row and the revision alone, so
//! nodes and checker need to exchange only those two numbers.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use quorate::schema::Dictionary;

/// How many counters all nodes increment. Few, so that they conflict.
pub(crate) const COUNTERS: u32 = 6;

/// How many accounts all nodes move money between.
pub(crate) const ACCOUNTS: u32 = 24;

/// What each account holds at first.
pub(crate) const OPENING_BALANCE: i64 = 1_000;

const CSV: &[u8] = include_bytes!("../../../samples/data/airports.csv");

const DDL: &str = include_str!("demo.ddl");

/// One airport as the data has it, and as the class `Airport` stores it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Airport {
    /// Its code at ICAO: unique.
    pub(crate) icao: String,
    /// Its code at IATA, often empty.
    pub(crate) iata: String,
    /// Its name.
    pub(crate) name: String,
    /// Its city.
    pub(crate) city: String,
    /// State or province.
    pub(crate) subd: String,
    /// Country, two letters.
    pub(crate) country: String,
    /// Feet above the sea.
    pub(crate) elevation: f64,
    /// Degrees north.
    pub(crate) lat: f64,
    /// Degrees east.
    pub(crate) lon: f64,
    /// Time zone.
    pub(crate) tz: String,
    /// Code of the country's own authority.
    pub(crate) lid: String,
}

/// All airports, by row.
pub(crate) struct Airports {
    rows: Vec<Airport>,
    by_icao: HashMap<String, u32>,
}

impl Airports {
    /// Parses the data built into the program.
    pub(crate) fn load() -> Self {
        let rows: Vec<Airport> = csv::Reader::from_reader(CSV)
            .deserialize()
            .collect::<Result<_, _>>()
            .expect("the data built in is well-formed; a test parses it");
        let by_icao = (0..).zip(&rows).map(|(row, airport)| (airport.icao.clone(), row)).collect();
        Self { rows, by_icao }
    }

    /// How many there are.
    pub(crate) fn count(&self) -> u32 {
        u32::try_from(self.rows.len()).expect("28 298 rows")
    }

    /// The row with this ICAO code.
    pub(crate) fn row(&self, icao: &str) -> Option<u32> {
        self.by_icao.get(icao).copied()
    }

    /// The ICAO code of a row.
    pub(crate) fn icao(&self, row: u32) -> &str {
        &self.rows[row as usize].icao
    }

    /// A row in a revision; 0 is as it is in the data.
    pub(crate) fn airport(&self, row: u32, revision: u32) -> Airport {
        let mut airport = self.rows[row as usize].clone();
        if revision > 0 {
            airport.name = format!("{} (revision {revision})", airport.name);
            airport.elevation += f64::from(revision % 1_000);
        }
        airport
    }

    /// The rows that a worker of a node owns: it alone inserts, updates and deletes them, so that
    /// the order of its own operations is the order of their effects.
    pub(crate) fn share(&self, node: u32, nodes: u32) -> impl Iterator<Item = u32> {
        (node..self.count()).step_by(nodes as usize)
    }
}

/// The classes of the demo.
pub(crate) fn dictionary() -> Dictionary {
    Dictionary::parse(DDL).expect("the DDL built in is right; a test parses it")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_data_is_whole_and_shares_cover_it_once() {
        let airports = Airports::load();
        assert_eq!(airports.count(), 28_298);
        for nodes in 1..=7 {
            let mut rows: Vec<u32> =
                (0..nodes).flat_map(|node| airports.share(node, nodes)).collect();
            rows.sort_unstable();
            assert!(rows.into_iter().eq(0..airports.count()));
        }
    }

    #[test]
    fn revisions_differ_and_keep_the_code() {
        let airports = Airports::load();
        let (first, second) = (airports.airport(5, 0), airports.airport(5, 3));
        assert_eq!(first.icao, second.icao);
        assert_ne!(first, second);
        assert_eq!(airports.row(&first.icao), Some(5));
    }

    #[test]
    fn the_ddl_declares_the_classes() {
        let dictionary = dictionary();
        let names: Vec<&str> = dictionary.classes().iter().map(|c| c.name.as_str()).collect();
        assert_eq!(names, ["Airport", "Counter", "Account", "Posting"]);
    }
}
