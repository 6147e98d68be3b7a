//! Index keys: their order as bytes is the order of the values, whatever the values.

#![allow(clippy::unwrap_used)]

mod support;

use std::cmp::Ordering;

use proptest::prelude::*;
use quorate_schema::{
    ClassDef, Dictionary, FieldId, IndexDef, IndexId, IndexKind, IndexPart, PatchWhat, RecordRef,
    Reference, Value, ValueError, prefix_end,
};
use support::{Random, field_value, record, same};

fn dictionary() -> Dictionary {
    Dictionary::parse(
        "declare database keys;
         enum E { A = -7, B = 0, C = 9 };
         struct S { string text; nullable signed<4> number; };
         class K {
             boolean a; signed<1> b; signed<2> c; signed<4> d; signed<8> e;
             unsigned<1> f; unsigned<2> g; unsigned<4> h; unsigned<8> i;
             float j; double k; char<9> l; string m; binary<9> n; binary o;
             date p; time q; datetime r; E s; ref<K> t;
             nullable signed<2> u; nullable string v; nullable double w; nullable E x;
             nullable S inner; S outer; autoid id;
         };",
    )
    .unwrap()
}

/// Every path that can be part of a key.
fn paths(class: &ClassDef) -> Vec<Vec<FieldId>> {
    let plain = class.fields.iter().enumerate();
    let plain = plain.filter(|(_, field)| !["inner", "outer", "id"].contains(&&*field.name));
    let mut paths: Vec<_> = plain.map(|(number, _)| vec![FieldId(number as u32)]).collect();
    for name in ["inner", "outer"] {
        let (field, _) = class.field(name).unwrap();
        paths.extend([vec![field, FieldId(0)], vec![field, FieldId(1)]]);
    }
    paths
}

fn index(class: &ClassDef, parts: Vec<IndexPart>) -> IndexDef {
    let name = "by_test".to_owned();
    IndexDef { id: IndexId(0), class: class.id, name, kind: IndexKind::Tree, unique: false, parts }
}

fn parts() -> impl Strategy<Value = Vec<IndexPart>> {
    let paths = paths(dictionary().class_by_name("K").unwrap());
    let part = (prop::sample::select(paths), any::<bool>())
        .prop_map(|(path, descending)| IndexPart { path, descending });
    prop::collection::vec(part, 1..4)
}

/// The value at a path; null if anything on the way is.
fn at_path(values: &[Value], path: &[FieldId]) -> Value {
    match (&values[path[0].0 as usize], &path[1..]) {
        (value, []) => value.clone(),
        (Value::Struct(inner), rest) => at_path(inner, rest),
        _ => Value::Null,
    }
}

fn key_values_of(index: &IndexDef, values: &[Value]) -> Vec<Value> {
    index.parts.iter().map(|part| at_path(values, &part.path)).collect()
}

/// The order the index is declared to have, value by value.
fn declared_order(index: &IndexDef, a: &[Value], b: &[Value]) -> Ordering {
    for (part, (a, b)) in index.parts.iter().zip(a.iter().zip(b)) {
        let order = a.key_order(b);
        if order.is_ne() {
            return if part.descending { order.reverse() } else { order };
        }
    }
    Ordering::Equal
}

fn two_records() -> impl Strategy<Value = (Vec<Value>, Vec<Value>)> {
    let dictionary = dictionary();
    let class = dictionary.class_by_name("K").unwrap();
    let both = (record(&dictionary, class), record(&dictionary, class));
    // Often equal in some fields, so that later parts decide.
    (both, prop::collection::vec(any::<bool>(), class.fields.len())).prop_map(
        |((a, mut b), equal)| {
            for ((a, b), equal) in a.iter().zip(&mut b).zip(equal) {
                if equal {
                    *b = a.clone();
                }
            }
            (a, b)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn keys_order_as_values((a, b) in two_records(), parts in parts()) {
        let dictionary = dictionary();
        let class = dictionary.class_by_name("K").unwrap();
        let index = index(class, parts);
        let layout = dictionary.layout(class.id);
        let mut keys = Vec::new();
        for values in [&a, &b] {
            let image = layout.encode(&dictionary, values).unwrap().image;
            let key = dictionary.key(&index, RecordRef::new(&dictionary, class, &image));
            let of_values = key_values_of(&index, values);
            prop_assert_eq!(&dictionary.key_from_values(&index, &of_values).unwrap(), &key.bytes);
            prop_assert_eq!(key.has_null, of_values.iter().any(Value::is_null));
            let read = dictionary.key_values(&index, &key.bytes).unwrap();
            let alike = read.iter().zip(&of_values).all(|(a, b)| a.key_order(b).is_eq());
            prop_assert!(alike && read.len() == of_values.len(), "{read:?} {of_values:?}");
            keys.push((key.bytes, of_values));
        }
        let expected = declared_order(&index, &keys[0].1, &keys[1].1);
        prop_assert_eq!(keys[0].0.cmp(&keys[1].0), expected, "{:?}", keys);
    }

    #[test]
    fn a_prefix_finds_exactly_its_keys(
        (a, b) in two_records(), parts in parts(), leading in 0_usize..4,
    ) {
        let dictionary = dictionary();
        let index = index(dictionary.class_by_name("K").unwrap(), parts);
        let (a, b) = (key_values_of(&index, &a), key_values_of(&index, &b));
        let leading = leading.min(a.len());
        let start = dictionary.key_from_values(&index, &a[..leading]).unwrap();
        let key = dictionary.key_from_values(&index, &b).unwrap();
        let alike = a.iter().zip(&b).take(leading).all(|(a, b)| a.key_order(b).is_eq());
        prop_assert_eq!(key.starts_with(&start), alike);
        let inside = key >= start && prefix_end(&start).is_none_or(|end| key < end);
        prop_assert_eq!(inside, alike);
    }

    #[test]
    fn text_prefixes_find_exactly_their_texts(
        lead in 0_i64..2, other_lead in 0_i64..2,
        prefix in support::text(), text in prop::option::of(support::text()),
        longer in support::text(), descending: bool, nullable: bool,
    ) {
        let dictionary = dictionary();
        let class = dictionary.class_by_name("K").unwrap();
        let field = |name: &str| vec![class.field(name).unwrap().0];
        let text_field = if nullable { field("v") } else { field("m") };
        let index = index(class, vec![
            IndexPart { path: field("d"), descending: false },
            IndexPart { path: text_field, descending },
        ]);
        let text = match text {
            None if nullable => Value::Null,
            None => Value::Text(format!("{prefix}{longer}")),
            Some(text) => Value::Text(text),
        };
        let expected = lead == other_lead
            && matches!(&text, Value::Text(text) if text.starts_with(&prefix));
        let key = dictionary.key_from_values(&index, &[Value::Signed(other_lead), text]).unwrap();
        let (start, end) =
            dictionary.text_prefix(&index, &[Value::Signed(lead)], &prefix).unwrap();
        prop_assert_eq!(key >= start && end.is_none_or(|end| key < end), expected);
    }

    #[test]
    fn prefix_end_is_the_least_bound(prefix in prop::collection::vec(250_u8..=255, 0..4),
                                     other in prop::collection::vec(250_u8..=255, 0..5)) {
        let below = match prefix_end(&prefix) {
            None => true,
            Some(end) => other < end,
        };
        prop_assert_eq!(other >= prefix && below, other.starts_with(&prefix));
    }
}

#[test]
fn floats_order_totally() {
    let dictionary = dictionary();
    let class = dictionary.class_by_name("K").unwrap();
    let path = vec![class.field("k").unwrap().0];
    let index = index(class, vec![IndexPart { path, descending: false }]);
    let key = |value: f64| dictionary.key_from_values(&index, &[Value::Double(value)]).unwrap();
    let rising =
        [f64::NEG_INFINITY, f64::MIN, -1.0, -5e-324, 0.0, 5e-324, 1.0, f64::MAX, f64::INFINITY];
    for pair in rising.windows(2) {
        assert!(key(pair[0]) < key(pair[1]), "{pair:?}");
    }
    assert!(key(f64::INFINITY) < key(f64::NAN));
    assert_eq!(key(-f64::NAN), key(f64::NAN));
    assert_eq!(key(-0.0), key(0.0));
}

#[test]
fn provisional_ids_in_keys_are_patched() {
    let dictionary = dictionary();
    let class = dictionary.class_by_name("K").unwrap();
    let part =
        |name: &str, descending| IndexPart { path: vec![class.field(name).unwrap().0], descending };
    let index = index(class, vec![part("a", false), part("t", true), part("id", false)]);
    let mut values = dictionary.initial_values(class);
    let target = |id, creation| Value::Ref(Reference { id, creation });
    let field = |name: &str| class.field(name).unwrap().0.0 as usize;
    values[field("t")] = target(3, Reference::PROVISIONAL);
    let image = dictionary.layout(class.id).encode(&dictionary, &values).unwrap().image;
    let mut key = dictionary.key(&index, RecordRef::new(&dictionary, class, &image));
    let whats: Vec<_> = key.patches.iter().map(|patch| (patch.what, patch.inverted)).collect();
    let expected = [
        (PatchWhat::RecordId(3), true),
        (PatchWhat::Creation(3), true),
        (PatchWhat::Autoid, false),
    ];
    assert_eq!(whats, expected);
    for (patch, value) in key.patches.iter().zip([11, 22, 33]) {
        patch.apply(&mut key.bytes, value);
    }
    let known = [Value::Boolean(false), target(11, 22), Value::Unsigned(33)];
    assert_eq!(key.bytes, dictionary.key_from_values(&index, &known).unwrap());
    assert_eq!(dictionary.key_values(&index, &key.bytes).unwrap(), known);
}

/// Keys are replicated state and hashed: their bytes are frozen.
#[test]
fn the_format_is_frozen() {
    let dictionary = dictionary();
    let class = dictionary.class_by_name("K").unwrap();
    let part =
        |name: &str, descending| IndexPart { path: vec![class.field(name).unwrap().0], descending };
    let index =
        index(class, vec![part("c", false), part("m", false), part("u", true), part("k", true)]);
    let values =
        [Value::Signed(-2), Value::Text("a\0".to_owned()), Value::Signed(1), Value::Double(-1.0)];
    #[rustfmt::skip]
    let expected = [
        0x7F, 0xFE, // -2
        b'a', 0x00, 0xFF, 0x00, 0x00, // "a\0"
        0xFE, 0x7F, 0xFE, // 1, not null, descending
        0xBF, 0xF0, 0, 0, 0, 0, 0, 0, // -1.0, descending
    ];
    assert_eq!(dictionary.key_from_values(&index, &values).unwrap(), expected);
}

#[test]
fn wrong_search_values_are_named() {
    let dictionary = dictionary();
    let class = dictionary.class_by_name("K").unwrap();
    let part =
        |name: &str| IndexPart { path: vec![class.field(name).unwrap().0], descending: false };
    let index = index(class, vec![part("b"), part("m")]);
    let keys = |values: &[Value]| dictionary.key_from_values(&index, values).unwrap_err();
    assert!(matches!(keys(&[Value::Signed(128)]), ValueError::OutOfRange { .. }));
    assert!(matches!(keys(&[Value::Null]), ValueError::NotNullable { .. }));
    let error = keys(&[Value::Text(String::new())]);
    assert!(error.to_string().starts_with("K.by_test is of type signed<1>"), "{error}");
    let three = [Value::Signed(0), Value::Text(String::new()), Value::Signed(0)];
    assert!(matches!(keys(&three), ValueError::WrongLength { expected: 2, got: 3, .. }));
    assert!(dictionary.text_prefix(&index, &[], "x").is_err(), "the first part is no text");
    assert!(dictionary.text_prefix(&index, &three[..2], "x").is_err(), "there is no third part");
}

/// Damaged keys: reading them never panics, and whatever is accepted is the key of its values.
#[test]
fn hostile_keys_do_no_harm() {
    let dictionary = dictionary();
    let class = dictionary.class_by_name("K").unwrap();
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut random = Random::new(2);
    let mut passed = 0;
    for round in 0..100_000 {
        let paths = paths(class);
        let first = round % paths.len();
        let parts = [first, (first + 1 + round % 7) % paths.len()]
            .map(|at| IndexPart { path: paths[at].clone(), descending: round % 3 == 0 });
        let index = index(class, parts.to_vec());
        let mut bytes = sample(&dictionary, &index, &mut runner, &mut random);
        random.damage(&mut bytes);
        let Ok(values) = dictionary.key_values(&index, &bytes) else {
            continue;
        };
        passed += 1;
        let again = dictionary.key_from_values(&index, &values).unwrap();
        assert_eq!(again, bytes, "two keys of {values:?}");
        assert!(same(&dictionary.key_values(&index, &again).unwrap(), &values));
    }
    assert!((5_000..95_000).contains(&passed), "the damage is too much or too little: {passed}");
}

/// A key of random values, or noise.
fn sample(
    dictionary: &Dictionary,
    index: &IndexDef,
    runner: &mut proptest::test_runner::TestRunner,
    random: &mut Random,
) -> Vec<u8> {
    use proptest::strategy::ValueTree;
    if random.below(4) == 0 {
        return (0..random.below(40)).map(|_| random.next() as u8).collect();
    }
    let class = dictionary.class(index.class).unwrap();
    let values: Vec<Value> = index
        .parts
        .iter()
        .map(|part| {
            let field = &class.fields[part.path[0].0 as usize];
            let value = field_value(dictionary, field).new_tree(runner).unwrap().current();
            at_path(&[value], &[&[FieldId(0)], &part.path[1..]].concat())
        })
        .collect();
    dictionary.key_from_values(index, &values).unwrap()
}
