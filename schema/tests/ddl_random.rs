//! Random DDL: valid text reads back from its canonical form, damaged text is refused with errors
//! that can be shown, and nothing hangs or panics.

#![allow(clippy::unwrap_used)]

mod support;

use quorate_schema::Dictionary;
use support::Random;

/// Words and signs of the language, and what does not belong there.
const PIECES: &[&str] = &[
    "declare",
    "database",
    "enum",
    "struct",
    "class",
    "local",
    "nullable",
    "unique",
    "tree",
    "hash",
    "list",
    "event",
    "autoid",
    "ref",
    "vector",
    "string",
    "signed",
    "char",
    "asc",
    "desc",
    "Airport",
    "Position",
    "Surface",
    "Visit",
    "lat",
    "null",
    "true",
    "-1",
    "0x7F",
    "1e3",
    "99999",
    "18446744073709551616",
    "\"text\"",
    "'",
    "\"",
    "\\",
    ";",
    "{",
    "}",
    "<",
    ">",
    "[",
    "]",
    ",",
    "=",
    ".",
    "-",
    "/*",
    "*/",
    "//",
    "\n",
    "\t",
    " ",
    "é",
    "\u{1F980}",
    "\0",
    "#",
    "Z",
];

fn check(text: &str, draw: bool) -> bool {
    match Dictionary::parse(text) {
        Ok(dictionary) => {
            let again = dictionary.to_ddl();
            let reparsed = Dictionary::parse(&again);
            assert_eq!(reparsed.as_ref(), Ok(&dictionary), "{text}\n====\n{again}");
            true
        }
        Err(errors) => {
            assert!(!errors.errors().is_empty() && errors.errors().len() <= 100);
            for error in errors.errors() {
                assert!(text.get(error.span.clone()).is_some(), "{error:?} of {text}");
                assert!(!error.message.is_empty());
            }
            if draw {
                assert!(!errors.to_string().is_empty());
                assert!(!errors.render("damaged.ddl").is_empty());
            }
            false
        }
    }
}

#[test]
fn damaged_text_is_refused_with_errors_in_place() {
    let texts = [include_str!("golden/airports.ddl"), include_str!("golden/names.ddl")];
    let mut random = Random::new(3);
    let mut valid = 0;
    for round in 0..20_000 {
        let mut text = texts[usize::from(round % 10 == 0)].to_owned();
        for _ in 0..=random.below(3) {
            let mut at = random.below(text.len());
            while !text.is_char_boundary(at) {
                at -= 1;
            }
            match random.below(3) {
                0 => text.insert_str(at, PIECES[random.below(PIECES.len())]),
                1 => {
                    text.remove(at);
                }
                _ => {
                    let end = text[at..].find([' ', ';', '\n']).map_or(text.len(), |end| at + end);
                    text.replace_range(at..end, PIECES[random.below(PIECES.len())]);
                }
            }
        }
        valid += usize::from(check(&text, round % 20 == 0));
    }
    assert!((1_000..19_000).contains(&valid), "the damage is too much or too little: {valid}");
}

#[test]
fn random_pieces_are_refused_with_errors_in_place() {
    let mut random = Random::new(4);
    for round in 0..80_000 {
        let mut text = String::from("declare database d; class C { int4 x; ");
        for _ in 0..random.below(40) {
            text += PIECES[random.below(PIECES.len())];
            text += [" ", ""][random.below(2)];
        }
        check(&text, round % 100 == 0);
    }
}

/// A random dictionary as text: every kind of declaration, field, default and index.
fn random_ddl(random: &mut Random) -> String {
    let mut text = String::from("declare database random;\n");
    let enums = 1 + random.below(2);
    let structs = 1 + random.below(3);
    let classes = 1 + random.below(3);
    for number in 0..enums {
        let start = random.next() as i32 / 2;
        text += &format!("enum E{number} {{ A = {start}, B, C }};\n");
    }
    for number in 0..structs {
        text += &format!("struct S{number} {{\n");
        for field in 0..1 + random.below(5) {
            text += &random_field(random, field, enums, number, classes);
        }
        text += "int4 last; };\n";
    }
    for number in 0..classes {
        text += &format!("class C{number} {{\n");
        for field in 0..random.below(8) {
            text += &random_field(random, field, enums, structs, classes);
        }
        text += "S0 inner; string key; nullable double weight;\n";
        text += ["", "autoid;\n", "autoid id;\n"][random.below(3)];
        text += ["", "list;\n"][random.below(2)];
        text += ["", "unique tree<key, weight desc> by_key;\n"][random.below(2)];
        text += ["", "hash<inner.last, key> by_last[10];\n"][random.below(2)];
        text += ["", "event <key update> key_updated; event <new> added;\n"][random.below(2)];
        text += "};\n";
    }
    text
}

fn random_field(
    random: &mut Random,
    number: usize,
    enums: usize,
    structs: usize,
    classes: usize,
) -> String {
    let (ty, default) = match random.below(16) {
        0 => ("signed<8>".to_owned(), (random.next() as i64).to_string()),
        1 => ("unsigned<8>".to_owned(), random.next().to_string()),
        2 => ("int1".to_owned(), (random.next() as i8).to_string()),
        3 => ("float".to_owned(), finite(f64::from(f32::from_bits(random.next() as u32)))),
        4 => ("double".to_owned(), finite(f64::from_bits(random.next()))),
        5 => ("boolean".to_owned(), "true".to_owned()),
        6 => ("char<40>".to_owned(), r#""a\"b\\c\n\t\0'é""#.to_owned()),
        7 => ("string".to_owned(), r#"'it\'s "text"'"#.to_owned()),
        8 => ("binary".to_owned(), "'bytes'".to_owned()),
        9 => ("date".to_owned(), (random.next() as i32).to_string()),
        10 => ("time".to_owned(), (random.next() % 86_400_000_000_000).to_string()),
        11 => ("datetime".to_owned(), (random.next() as i64).to_string()),
        12 => (format!("E{}", random.below(enums)), ["A", "B", "C"][random.below(3)].to_owned()),
        13 => (format!("ref<C{}>", random.below(classes)), "null".to_owned()),
        14 if structs > 0 => (format!("S{}", random.below(structs)), String::new()),
        _ => ("vector<vector<blob>>".to_owned(), String::new()),
    };
    let nullable = ["", "nullable ", "optional "][random.below(3)];
    if random.below(6) == 0 {
        return format!("{nullable}{ty} f{number}[{}];\n", 1 + random.below(5));
    }
    if default.is_empty() || random.below(2) == 0 {
        return format!("{nullable}{ty} f{number};\n");
    }
    format!("{nullable}{ty} f{number} = {default};\n")
}

fn finite(number: f64) -> String {
    if number.is_finite() { format!("{number:e}") } else { "0.5".to_owned() }
}

#[test]
fn random_dictionaries_read_back() {
    let mut random = Random::new(5);
    for _ in 0..3_000 {
        let text = random_ddl(&mut random);
        if let Err(errors) = Dictionary::parse(&text) {
            panic!("{errors}");
        }
        assert!(check(&text, false));
    }
}
