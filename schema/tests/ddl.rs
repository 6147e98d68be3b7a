//! DDL: what is accepted, what it means, and what is said about the rest.
//!
//! Each `golden/*.ddl` is parsed; `golden/*.txt` holds what must come out: the canonical DDL of
//! the dictionary, or all errors in both renderings. `UPDATE_GOLDEN=1` writes the files anew.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

use quorate_schema::{Dictionary, EventKind, IndexKind, Type, Value};

const AIRPORTS: &str = include_str!("golden/airports.ddl");

fn outcome(name: &str, text: &str) -> String {
    match Dictionary::parse(text) {
        Ok(dictionary) => dictionary.to_ddl(),
        Err(errors) => {
            let drawn = errors.render(&format!("{name}.ddl"));
            format!("{errors}\n\n==== drawn ====\n\n{drawn}")
        }
    }
}

#[test]
fn golden_files() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut differing = Vec::new();
    let mut seen = 0;
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "ddl") {
            continue;
        }
        seen += 1;
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let got = outcome(&name, &fs::read_to_string(&path).unwrap());
        let expected_path = path.with_extension("txt");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&expected_path, &got).unwrap();
        }
        let expected = fs::read_to_string(&expected_path).unwrap_or_default();
        if got != expected {
            differing.push(format!("---- {name}: got\n{got}\n---- expected\n{expected}"));
        }
    }
    assert!(seen >= 7, "the golden files are gone: {seen} left");
    assert!(differing.is_empty(), "{}", differing.join("\n"));
}

#[test]
fn airports_mean_what_they_say() {
    let dictionary = Dictionary::parse(AIRPORTS).unwrap();
    assert_eq!(dictionary.name(), "airports");
    let airport = dictionary.class_by_name("Airport").unwrap();
    assert!(!airport.local && airport.list);
    let (id, field) = airport.field("id").unwrap();
    assert_eq!((airport.autoid, &field.ty), (Some(id), &Type::Autoid));
    let (_, iata) = airport.field("iata").unwrap();
    assert_eq!((&iata.ty, iata.nullable), (&Type::Char(3), true));
    let (_, length) = airport.field("frequencies_khz").unwrap();
    assert_eq!(length.ty, Type::Array(Box::new(Type::Unsigned(4)), 3));
    let (_, name) = airport.field("name").unwrap();
    assert_eq!(name.default, Some(Value::Text("unnamed \"field\"\n".to_owned())));
    assert_eq!(dictionary.structs()[1].fields[1].default, Some(Value::Unsigned(1000)));
    assert_eq!(dictionary.enums()[0].number("Water"), Some(11));

    let by_icao = airport.index("by_icao").unwrap();
    assert!(by_icao.unique && by_icao.kind == IndexKind::Hash);
    let by_country = airport.index("by_country").unwrap();
    assert!(!by_country.unique && by_country.kind == IndexKind::Tree);
    assert!(!by_country.parts[0].descending && by_country.parts[1].descending);
    assert_eq!(airport.index("by_position").unwrap().parts[1].path.len(), 2);
    let rated = airport.field("rating").unwrap().0;
    assert_eq!(airport.events[1].kind, EventKind::Field(rated));

    let visit = dictionary.class_by_name("Visit").unwrap();
    assert!(visit.local);
    let by_autoid = visit.index("by_autoid").unwrap();
    assert!(by_autoid.unique && by_autoid.kind == IndexKind::Hash);
    assert_eq!(dictionary.index(by_autoid.id), Some(by_autoid));
    assert_eq!(dictionary.index_count(), 8);
}

#[test]
fn canonical_text_reads_back() {
    let dictionary = Dictionary::parse(AIRPORTS).unwrap();
    let text = dictionary.to_ddl();
    assert_eq!(Dictionary::parse(&text).unwrap(), dictionary);
    assert_eq!(Dictionary::parse(&text).unwrap().to_ddl(), text);
}

#[test]
fn errors_know_their_place() {
    let errors =
        Dictionary::parse("declare database d;\nclass C {\n\t/* é */ strng name;\n};").unwrap_err();
    let first = &errors.errors()[0];
    assert_eq!((first.line, first.column), (3, 10));
    assert_eq!(&errors.text()[first.span.clone()], "strng");
    assert_eq!(first.hint.as_deref(), Some("did you mean `string`?"));
}

#[test]
fn deep_nesting_is_refused_not_followed() {
    let deep = format!(
        "declare database d; class C {{ {}int4{} x; }};",
        "vector<".repeat(50_000),
        ">".repeat(50_000)
    );
    assert!(Dictionary::parse(&deep).is_err());
    let mut chain = String::from("declare database d;\n");
    for number in 0..20_000 {
        chain += &format!("struct S{number} {{ S{} next; }};\n", number + 1);
    }
    chain += "struct S20000 { int4 x; };\nclass C { S0 s; };";
    let errors = Dictionary::parse(&chain).unwrap_err();
    assert!(errors.to_string().contains("structs nest deeper than"), "{errors}");
}

#[test]
fn many_errors_are_cut_off() {
    let text = format!("declare database d; class C {{ {} }};", "wrong x; ".repeat(10_000));
    let errors = Dictionary::parse(&text).unwrap_err();
    assert_eq!((errors.errors().len(), errors.are_cut_off()), (100, true));
    assert!(errors.to_string().ends_with("\nmore errors are not shown"), "{errors}");
    assert!(errors.render("x.ddl").ends_with("\nmore errors are not shown\n"));
    // All there are is no cut.
    let text = format!("declare database d; class C {{ {} }};", "trie<x> i; ".repeat(100));
    let errors = Dictionary::parse(&text).unwrap_err();
    assert_eq!((errors.errors().len(), errors.are_cut_off()), (100, false));
    assert!(!errors.to_string().contains("not shown"));
    assert!(!errors.render("x.ddl").contains("not shown"));
}

/// What is printed per error is bounded, whatever the lines are like, and its caret is right.
#[test]
fn long_lines_are_shown_in_part() {
    let long = " ".repeat(600_000);
    let class = |members: &str| format!("declare database d;\nclass C {{ {members} }};\n");
    let n = "n".repeat(300_000);
    let texts = [
        class(&"wrong x; ".repeat(70_000)),
        class(&"\u{e4} x; ".repeat(70_000)),
        class(&format!("int4 x;{long}wrong y;{long}int4 z;")),
        class(&format!("string s = \"{long}")),
        class(&format!("{} {n};", "int4 x; ".repeat(200))),
        class(&format!("{n} x; ").repeat(5)),
        format!("declare database d; class {n} {{ {} }};", "int4 x; ".repeat(200)),
        format!("declare database d;\nclass C {{ int4 x;{long}\n"),
        format!("declare database d;\nclass C {{ int4 x;{long}"),
        format!("declare database d;\nclass C {{ /*{long}\n{long}"),
        format!("declare database d;\nclass C {{ \"{long}\n{long}"),
    ];
    for text in &texts {
        let errors = Dictionary::parse(text).unwrap_err();
        let (plain, drawn) = (errors.to_string(), errors.render("x.ddl"));
        let head = &text.as_bytes()[..40];
        let limit = 2_000 * errors.errors().len();
        assert!(plain.len() < limit, "{} bytes for {head:?}", plain.len());
        assert!(drawn.len() < 4 * limit, "{} bytes drawn for {head:?}", drawn.len());
    }
    let errors = Dictionary::parse(&texts[2]).unwrap_err();
    let blank = " ".repeat(80);
    let plain = format!(
        "schema line 2, column 600018: unknown type `wrong`\n  | ...{blank}wrong y;{}...\n  \
         |    {blank}^^^^^",
        " ".repeat(72)
    );
    assert_eq!(errors.to_string(), plain);
    let drawn = errors.render("x.ddl");
    let lines: Vec<&str> = drawn.lines().collect();
    assert!(lines[1].ends_with("[ x.ddl:2:600018 ]"), "{drawn}");
    let caret = lines[4].chars().position(|char| char == '\u{2500}').unwrap();
    assert_eq!(lines[3].chars().skip(caret).take(8).collect::<String>(), "wrong y;", "{drawn}");
    assert!(lines[3].starts_with(" 2 \u{2502} ...") && lines[3].ends_with("..."), "{drawn}");
}

/// Every limit is refused one past it, and held at once: nothing grows with the square of a text.
#[test]
fn limits_are_held() {
    let class = |members: String| format!("declare database d; class C {{ int4 x; {members} }};");
    let repeat =
        |count: usize, member: fn(usize) -> String| -> String { (0..count).map(member).collect() };
    let within = [
        class(repeat(4_095, |n| format!("int4 f{n};"))),
        class(repeat(256, |n| format!("tree<x> i{n};"))),
        class(repeat(256, |n| format!("event <new> e{n};"))),
        class(format!("int4 {};", "n".repeat(255))),
        format!(
            "declare database d; enum E {{ {} }}; class C {{ E e; }};",
            repeat(4_096, |n| format!("M{n},"))
        ),
    ];
    for text in within {
        Dictionary::parse(&text).unwrap();
    }
    let beyond = [
        (class(repeat(4_096, |n| format!("int4 f{n};"))), "more than 4096 fields"),
        (class(repeat(257, |n| format!("tree<x> i{n};"))), "more than 256 indexes"),
        (class(repeat(257, |n| format!("event <new> e{n};"))), "more than 256 events"),
        (class(format!("int4 {};", "n".repeat(256))), "a name of more than 255 bytes"),
        (class(format!("tree<{}x> i;", "x,".repeat(500_000))), "more than 16 parts"),
        (
            format!("declare database d; enum E {{ {} }};", repeat(4_097, |n| format!("M{n},"))),
            "more than 4096 members",
        ),
        (" ".repeat((16 << 20) + 1), "a text of more than 16777216 bytes"),
    ];
    for (text, expected) in beyond {
        let errors = Dictionary::parse(&text).unwrap_err();
        assert!(errors.errors().iter().any(|error| error.message == expected), "{expected}");
    }
}
