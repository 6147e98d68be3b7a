//! Derived classes: the same dictionary as from DDL, and values that come back as they went.

#![allow(clippy::unwrap_used)]

use quorate_schema::{
    Class, Dictionary, Enum, RecordRef, Ref, Reference, Struct, Value, ValueError,
};

#[derive(Clone, Copy, Debug, Default, PartialEq, Enum)]
#[class(crate = "quorate_schema")]
enum Surface {
    #[default]
    Asphalt,
    Grass = 10,
    #[class(name = "Unknown")]
    NotKnown = -1,
}

#[derive(Clone, Debug, Default, PartialEq, Struct)]
#[class(crate = "quorate_schema")]
struct Position {
    lat: f64,
    lon: f64,
    elevation: Option<i32>,
}

#[derive(Clone, Debug, Default, PartialEq, Struct)]
#[class(name = "Runway", crate = "quorate_schema")]
struct Strip {
    #[class(char = 7)]
    name: String,
    #[class(default = 1000)]
    length_m: u16,
    #[class(default = Surface::NotKnown)]
    surface: Surface,
    threshold: Option<Position>,
}

#[derive(Clone, Debug, Default, PartialEq, Class)]
#[class(crate = "quorate_schema", list)]
#[class(index(unique, hash(icao)))]
#[class(index(tree(country, name desc), name = "by_country"))]
#[class(index(tree(position.lat, position.lon), name = "by_position"))]
struct Airport {
    #[class(autoid)]
    id: u64,
    #[class(char = 4)]
    icao: String,
    #[class(char = 3)]
    iata: Option<String>,
    #[class(default = "unnamed \"field\"\n")]
    name: String,
    country: String,
    position: Position,
    runways: Vec<Strip>,
    aliases: Vec<String>,
    frequencies_khz: [u32; 3],
    color: [u8; 3],
    #[class(default = true)]
    open: bool,
    #[class(default = -1.5)]
    rating: f32,
    weight: f64,
    #[class(binary = 16)]
    digest: Vec<u8>,
    raw: Vec<u8>,
    #[class(blob)]
    chart: Option<Vec<u8>>,
    #[class(date)]
    founded: i32,
    #[class(time)]
    opens: u64,
    #[class(datetime)]
    updated: Option<i64>,
    #[class(date)]
    holidays: Vec<i32>,
    #[class(default = Surface::Grass)]
    main_surface: Option<Surface>,
    alternate: Ref<Airport>,
    near: Vec<Ref<Airport>>,
    #[class(default = LOWEST)]
    r#type: i8,
    #[class(name = "class_number")]
    number: u8,
    counts: Vec<i16>,
    large: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Class)]
#[class(crate = "quorate_schema", name = "Visit", local)]
struct LocalVisit {
    #[class(autoid)]
    id: Option<u64>,
    airport: Ref<Airport>,
}

const LOWEST: i8 = -128;

const DDL: &str = r#"
declare database airports;
enum Surface { Asphalt, Grass = 10, Unknown = -1 };
struct Position { double lat; double lon; nullable signed<4> elevation; };
struct Runway {
    char<7> name; unsigned<2> length_m = 1000; Surface surface = Unknown;
    nullable Position threshold;
};
class Airport {
    autoid id; char<4> icao; nullable char<3> iata; string name = "unnamed \"field\"\n";
    string country; Position position; vector<Runway> runways; vector<string> aliases;
    unsigned<4> frequencies_khz[3]; unsigned<1> color[3]; boolean open = true;
    float rating = -1.5; double weight; binary<16> digest; binary raw; nullable blob chart;
    date founded; time opens; nullable datetime updated; vector<date> holidays;
    nullable Surface main_surface = Grass; ref<Airport> alternate; vector<ref<Airport>> near;
    signed<1> type = -128; unsigned<1> class_number; vector<signed<2>> counts;
    nullable unsigned<8> large;
    unique hash<icao> by_icao;
    tree<country, name desc> by_country;
    tree<position.lat, position.lon> by_position;
    list;
};
local class Visit { autoid id; ref<Airport> airport; };
"#;

fn dictionary() -> Dictionary {
    Dictionary::builder("airports").class::<Airport>().class::<LocalVisit>().build().unwrap()
}

fn frankfurt() -> Airport {
    let position = Position { lat: 50.03, lon: 8.57, elevation: Some(364) };
    let strip = Strip { name: "07C".to_owned(), length_m: 4000, ..Strip::default() };
    let grass =
        Strip { surface: Surface::Grass, threshold: Some(position.clone()), ..strip.clone() };
    Airport {
        id: 0,
        icao: "EDDF".to_owned(),
        iata: Some("FRA".to_owned()),
        name: "Frankfurt \u{1F6EB}".to_owned(),
        country: "DE".to_owned(),
        position,
        runways: vec![strip, grass],
        aliases: vec!["Rhein-Main".to_owned(), String::new()],
        frequencies_khz: [118_025, 1, 2],
        color: [1, 2, 255],
        open: true,
        rating: 4.5,
        weight: -0.0,
        digest: vec![0, 1, 255],
        raw: vec![0; 40],
        chart: Some(Vec::new()),
        founded: -12_000,
        opens: 1,
        updated: Some(i64::MIN),
        holidays: vec![-1, 5],
        main_surface: Some(Surface::NotKnown),
        alternate: Ref::to(Reference { id: 4, creation: 9 }),
        near: vec![Ref::to(Reference { id: 5, creation: 9 })],
        r#type: -128,
        number: 255,
        counts: vec![i16::MIN],
        large: Some(u64::MAX),
    }
}

#[test]
fn derived_is_equal_to_parsed() {
    let parsed = Dictionary::parse(DDL).unwrap();
    assert_eq!(dictionary().to_ddl(), parsed.to_ddl());
    assert_eq!(dictionary(), parsed);
}

#[test]
fn classes_added_twice_count_once() {
    let twice = Dictionary::builder("airports").class::<Airport>().class::<Airport>();
    assert_eq!(twice.build().unwrap().classes().len(), 1);
}

#[test]
fn values_come_back_as_they_went() {
    let dictionary = dictionary();
    let class = dictionary.class_by_name(Airport::NAME).unwrap();
    Airport::check(class).unwrap();
    let layout = dictionary.layout(class.id);
    for (airport, id) in [(frankfurt(), 7), (Airport::default(), 0)] {
        let encoded = layout.encode(&dictionary, &airport.to_values()).unwrap();
        let early = Airport::from_record(&RecordRef::new(&dictionary, class, &encoded.image));
        assert!(matches!(early, Err(ValueError::AutoidUnassigned { .. })), "{early:?}");
        let mut image = encoded.image;
        encoded.patches[0].apply(&mut image, id);
        let read = Airport::from_record(&RecordRef::new(&dictionary, class, &image)).unwrap();
        assert_eq!(read, Airport { id, ..airport });
    }
}

#[test]
fn an_optional_autoid_is_none_until_given_out() {
    let dictionary = dictionary();
    let class = dictionary.class_by_name("Visit").unwrap();
    let visit = LocalVisit { id: None, airport: Ref::none() };
    let image = dictionary.layout(class.id).encode(&dictionary, &visit.to_values()).unwrap().image;
    let read = LocalVisit::from_record(&RecordRef::new(&dictionary, class, &image)).unwrap();
    assert_eq!(read, visit);
}

#[test]
fn another_dictionary_is_noticed() {
    let other = Dictionary::parse(
        "declare database d;
         class Visit { string airport; unsigned<8> id; };
         class Other { autoid id; };",
    )
    .unwrap();
    let visit = other.class_by_name("Visit").unwrap();
    assert!(matches!(LocalVisit::check(visit), Err(ValueError::UnknownField { .. })));
    let image = other
        .layout(visit.id)
        .encode(&other, &[Value::Text("x".to_owned()), Value::Unsigned(1)])
        .unwrap()
        .image;
    let error = LocalVisit::from_record(&RecordRef::new(&other, visit, &image)).unwrap_err();
    let message = error.to_string();
    assert!(message.starts_with("Visit.airport holds text \"x\", which is no "), "{message}");
    let without = other.class_by_name("Other").unwrap();
    assert!(matches!(LocalVisit::check(without), Err(ValueError::UnknownField { .. })));
}

/// What only the dictionary as a whole can know is reported when it is built, over its DDL.
#[test]
fn errors_of_the_whole_show_the_ddl() {
    #[derive(Class)]
    #[class(crate = "quorate_schema", index(tree(name.first)), index(tree(tags), name = "x"))]
    struct Person {
        #[class(char = 2, default = "too long")]
        name: String,
        tags: Vec<String>,
        visits: Ref<LocalVisit>,
    }
    let person = Person { name: String::new(), tags: Vec::new(), visits: Ref::none() };
    assert_eq!(person.to_values().len(), 3);
    let built = Dictionary::builder("d").class::<Person>().class::<LocalVisit>().build();
    let errors = built.unwrap_err();
    let messages: Vec<&str> = errors.errors().iter().map(|error| error.message.as_str()).collect();
    assert_eq!(
        messages,
        [
            "8 bytes do not fit char<2>",
            "a replicated class refers to the local class `Visit`",
            "`name` is no struct and has no fields",
            "a vector cannot be part of a key",
            "unknown class `Airport`",
        ]
    );
}

#[test]
fn mistakes_do_not_compile() {
    trybuild::TestCases::new().compile_fail("tests/compile_errors/*.rs");
}
