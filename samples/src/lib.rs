//! Nothing but the airports that several samples show.
//!
//! The samples themselves are in `src/bin`: small, numbered, each to be read from top to bottom by
//! itself. What a reader would have to look up here to understand one of them must not be here.

/// The first lines of the sample data: ICAO code, name and country of some airports.
pub const AIRPORTS: [(&str, &str, &str); 6] = [
    ("EDDB", "Berlin Brandenburg Airport", "DE"),
    ("EDDM", "Munich Airport", "DE"),
    ("EGLL", "London Heathrow Airport", "GB"),
    ("KSFO", "San Francisco International Airport", "US"),
    ("LSZH", "Zurich Airport", "CH"),
    ("RJTT", "Tokyo Haneda International Airport", "JP"),
];
