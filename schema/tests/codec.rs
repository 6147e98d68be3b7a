//! Record images: what is written is read, equal values give equal bytes, and no bytes a peer
//! could send do any harm.

#![allow(clippy::unwrap_used)]

mod support;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use quorate_schema::{
    ClassDef, Dictionary, FieldId, MAX_VARIABLE_BYTES, Patch, PatchWhat, RecordRef, Reference,
    Type, Value, ValueError,
};
use support::{Random, airports, record, same};

fn class<'d>(dictionary: &'d Dictionary, name: &str) -> &'d ClassDef {
    dictionary.class_by_name(name).unwrap()
}

/// All fields but the autoid, as changes.
fn as_changes(class: &ClassDef, values: &[Value]) -> Vec<(FieldId, Value)> {
    let fields = (0..values.len()).map(|number| FieldId(number as u32));
    fields.zip(values.iter().cloned()).filter(|(field, _)| Some(*field) != class.autoid).collect()
}

fn airport_and_changes() -> impl Strategy<Value = (Vec<Value>, Vec<Value>, Vec<bool>)> {
    let dictionary = airports();
    let airport = class(&dictionary, "Airport");
    let fields = airport.fields.len();
    (
        record(&dictionary, airport),
        record(&dictionary, airport),
        prop::collection::vec(any::<bool>(), fields),
    )
}

proptest! {
    #[test]
    fn what_is_written_is_read((values, _, _) in airport_and_changes()) {
        let dictionary = airports();
        let airport = class(&dictionary, "Airport");
        let layout = dictionary.layout(airport.id);
        let encoded = layout.encode(&dictionary, &values).unwrap();
        layout.check(&dictionary, &encoded.image).unwrap();
        let read = RecordRef::new(&dictionary, airport, &encoded.image).values();
        prop_assert!(same(&read, &values), "{read:?}\n{values:?}");
        prop_assert_eq!(layout.patches(&dictionary, &encoded.image), encoded.patches);
    }

    /// An update gives the image that the new values would have had from the start: images are
    /// hashed, so how a record came to its values must not show.
    #[test]
    fn updated_is_as_if_new((old, new, chosen) in airport_and_changes()) {
        let dictionary = airports();
        let airport = class(&dictionary, "Airport");
        let layout = dictionary.layout(airport.id);
        let old_image = layout.encode(&dictionary, &old).unwrap().image;
        let mut expected = old.clone();
        let mut changes = Vec::new();
        for (field, value) in as_changes(airport, &new) {
            if chosen[field.0 as usize] {
                expected[field.0 as usize] = value.clone();
                changes.push((field, value));
            }
        }
        let updated = layout.update(&dictionary, &old_image, &changes).unwrap();
        prop_assert_eq!(updated, layout.encode(&dictionary, &expected).unwrap());
    }

    /// After its patches an image has no provisional id left, and nothing else changed.
    #[test]
    fn patches_fill_in_all_ids_and_nothing_else((values, _, _) in airport_and_changes()) {
        let dictionary = airports();
        let airport = class(&dictionary, "Airport");
        let layout = dictionary.layout(airport.id);
        let encoded = layout.encode(&dictionary, &values).unwrap();
        let mut image = encoded.image.clone();
        for patch in &encoded.patches {
            patch.apply(&mut image, match patch.what {
                PatchWhat::RecordId(number) => number + 100,
                PatchWhat::Creation(_) => 7,
                PatchWhat::Autoid => 42,
            });
        }
        layout.check(&dictionary, &image).unwrap();
        prop_assert!(layout.patches(&dictionary, &image).is_empty());
        let expected: Vec<Value> = airport.fields.iter().zip(&values).map(|(field, value)| {
            match value {
                Value::Ref(reference) if reference.is_provisional() => {
                    Value::Ref(Reference { id: reference.id + 100, creation: 7 })
                }
                _ if field.ty == Type::Autoid => Value::Unsigned(42),
                value => value.clone(),
            }
        }).collect();
        let read = RecordRef::new(&dictionary, airport, &image).values();
        prop_assert!(same(&read, &expected), "{read:?}\n{expected:?}");
    }
}

#[test]
fn references_in_vectors_and_structs_are_patched() {
    let dictionary = Dictionary::parse(
        "declare database d;
         struct Link { nullable string label; ref<Node> to; };
         class Node { vector<Link> links; Link one; ref<Node> pair[2]; };",
    )
    .unwrap();
    let node = class(&dictionary, "Node");
    let layout = dictionary.layout(node.id);
    let provisional = |id| Value::Ref(Reference { id, creation: Reference::PROVISIONAL });
    let known = Value::Ref(Reference { id: 1, creation: 2 });
    let link = |to: Value| Value::Struct(vec![Value::Text("l".to_owned()), to]);
    let values = vec![
        Value::List(vec![link(provisional(5)), link(known.clone()), link(Value::Null)]),
        link(provisional(6)),
        Value::List(vec![known.clone(), provisional(7)]),
    ];
    let encoded = layout.encode(&dictionary, &values).unwrap();
    let whats: Vec<PatchWhat> = encoded.patches.iter().map(|patch| patch.what).collect();
    let mut expected = Vec::new();
    // By offset: the fixed part comes before what is variable.
    for number in [6, 5, 7] {
        expected.extend([PatchWhat::RecordId(number), PatchWhat::Creation(number)]);
    }
    assert_eq!(whats, expected);
    let mut image = encoded.image;
    for patch in &encoded.patches {
        patch.apply(&mut image, 9);
    }
    let nine = Value::Ref(Reference { id: 9, creation: 9 });
    let read = RecordRef::new(&dictionary, node, &image).values();
    assert_eq!(
        read[0],
        Value::List(vec![link(nine.clone()), link(known.clone()), link(Value::Null)])
    );
    assert_eq!(read[1], link(nine.clone()));
    assert_eq!(read[2], Value::List(vec![known, nine]));
}

#[test]
fn typed_getters_read_in_place() {
    let dictionary = airports();
    let airport = class(&dictionary, "Airport");
    let mut values = dictionary.initial_values(airport);
    let field = |name: &str| airport.field(name).unwrap().0;
    values[field("icao").0 as usize] = Value::Text("EDDF".to_owned());
    let image = dictionary.layout(airport.id).encode(&dictionary, &values).unwrap().image;
    let record = RecordRef::new(&dictionary, airport, &image);
    let range = image.as_ptr_range();
    let icao = record.text(field("icao")).unwrap();
    assert_eq!(icao, "EDDF");
    assert!(range.contains(&icao.as_ptr()), "text was copied");
    assert_eq!(record.bytes(field("digest")), Some("raw".as_bytes()));
    assert_eq!(record.boolean(field("open")), Some(true));
    assert_eq!(record.float(field("rating")), Some(-1.5));
    assert_eq!(record.double(field("weight")), Some(1e-3));
    assert_eq!(record.date(field("founded")), Some(-365));
    assert_eq!(record.time_ns(field("opens")), Some(0));
    assert_eq!(record.datetime_ns(field("updated")), Some(0));
    assert_eq!(record.enumeration(field("main_surface")), Some(0));
    assert_eq!(record.unsigned(field("legacy_id")), Some(0));
    assert_eq!(record.value_by_name("iata"), Some(Value::Null));
    assert_eq!(record.value_by_name("nothing"), None);
    assert_eq!(record.text(field("iata")), None, "null");
    assert_eq!(record.text(field("open")), None, "of another type");
    assert_eq!(record.reference(field("alternate")), None);
    assert_eq!(record.unsigned(field("id")), None, "not given out yet");
    assert!(record.is_null(field("id")) && record.is_null(field("iata")));
}

/// The bytes of images are hashed and sent between nodes of different builds: they are frozen.
#[test]
fn the_format_is_frozen() {
    let dictionary = Dictionary::parse(
        "declare database d;
         class C {
             nullable signed<2> a; string b; autoid c; vector<string> d; ref<C> e; double f;
         };",
    )
    .unwrap();
    let values = [
        Value::Signed(-2),
        Value::Text("hé".to_owned()),
        Value::Null,
        Value::List(vec![Value::Text("x".to_owned())]),
        Value::Null,
        Value::Double(1.0),
    ];
    let class = class(&dictionary, "C");
    let encoded = dictionary.layout(class.id).encode(&dictionary, &values).unwrap();
    #[rustfmt::skip]
    let expected = [
        0b10, // null bits: e
        0xFE, 0xFF, // a
        0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, // c, not given out
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, // e
        0, 0, 0, 0, 0, 0, 0xF0, 0x3F, // f
        3, 0, 0, 0, 12, 0, 0, 0, // ends of b and d
        b'h', 0xC3, 0xA9, // b
        1, 0, 0, 0, 1, 0, 0, 0, b'x', // d
    ];
    assert_eq!(encoded.image, expected);
    assert_eq!(encoded.patches, [Patch { offset: 3, what: PatchWhat::Autoid, inverted: false }]);
}

#[test]
fn not_a_number_has_one_image_and_zero_has_two() {
    let dictionary = Dictionary::parse("declare database d; class C { float f; double d; };");
    let dictionary = dictionary.unwrap();
    let layout = dictionary.layout(dictionary.classes()[0].id);
    let image = |float: f32, double: f64| {
        let values = [Value::Float(float), Value::Double(double)];
        layout.encode(&dictionary, &values).unwrap().image
    };
    let nan = image(f32::NAN, f64::NAN);
    let floats = [0x7F80_0001, 0xFFC0_0000, 0xFFFF_FFFF].map(f32::from_bits);
    let doubles = [0x7FF0_0000_0000_0001, 0xFFF8_0000_0000_0000, u64::MAX].map(f64::from_bits);
    for (float, double) in floats.into_iter().zip(doubles) {
        assert_eq!(image(float, double), nan);
    }
    assert_ne!(image(0.0, 0.0), image(-0.0, 0.0));
    assert_ne!(image(0.0, 0.0), image(0.0, -0.0));
    let mut other = nan.clone();
    other[4] = 1;
    assert!(layout.check(&dictionary, &nan).is_ok());
    assert!(layout.check(&dictionary, &other).is_err(), "another form of NaN");
}

fn error_of(field: &str, value: Value) -> ValueError {
    let dictionary = airports();
    let airport = class(&dictionary, "Airport");
    let mut values = dictionary.initial_values(airport);
    values[airport.field(field).unwrap().0.0 as usize] = value;
    dictionary.layout(airport.id).encode(&dictionary, &values).unwrap_err()
}

#[test]
fn wrong_values_are_named() {
    let text = |text: &str| Value::Text(text.to_owned());
    let cases = [
        ("name", Value::Signed(1), "Airport.name is of type string but got signed 1"),
        ("icao", text("EDDFX"), "Airport.icao: 5 bytes are more than char<4> holds"),
        ("icao", Value::Null, "Airport.icao of type char<4> is not nullable"),
        ("digest", Value::Bytes(vec![0; 17]), "17 bytes are more than binary<16> holds"),
        ("legacy_id", Value::Signed(-1), "signed -1 does not fit unsigned<8>"),
        ("main_surface", Value::Enum(3), "3 is no member of enum Surface"),
        ("opens", Value::Time(86_400_000_000_000), "does not fit time"),
        ("id", Value::Unsigned(7), "is filled by the counter of its class"),
        ("position", Value::Struct(vec![]), "Airport.position takes 3 values but got 0"),
        (
            "position",
            Value::Struct(vec![Value::Double(0.0), text("x"), Value::Null]),
            "Airport.position.lon is of type double but got text \"x\"",
        ),
        ("frequencies_khz", Value::List(vec![]), "takes 3 values but got 0"),
        ("aliases", Value::List(vec![Value::Null]), "Airport.aliases of type string is not"),
        ("runways", text("x"), "is of type vector<Runway> but got text"),
    ];
    for (field, value, expected) in cases {
        let message = error_of(field, value).to_string();
        assert!(message.contains(expected), "{field}: {message}");
    }
}

#[test]
fn updates_refuse_unknown_fields_and_other_autoids() {
    let dictionary = airports();
    let airport = class(&dictionary, "Airport");
    let layout = dictionary.layout(airport.id);
    let values = dictionary.initial_values(airport);
    let mut image = layout.encode(&dictionary, &values).unwrap().image;
    let id = airport.autoid.unwrap();
    let update = |image: &[u8], field, value| layout.update(&dictionary, image, &[(field, value)]);
    let error = update(&image, FieldId(99), Value::Null).unwrap_err();
    assert!(matches!(error, ValueError::UnknownField { .. }), "{error}");
    assert!(update(&image, id, Value::Null).is_ok(), "the value it has");
    layout.patches(&dictionary, &image)[0].apply(&mut image, 5);
    assert_eq!(update(&image, id, Value::Unsigned(5)).unwrap().image, image);
    let error = update(&image, id, Value::Unsigned(6)).unwrap_err();
    assert!(matches!(error, ValueError::AutoidGiven { .. }), "{error}");
}

#[test]
fn a_record_over_its_limit_is_refused() {
    let dictionary = Dictionary::parse("declare database d; class C { blob a; blob b; };").unwrap();
    let layout = dictionary.layout(dictionary.classes()[0].id);
    let full = vec![7; MAX_VARIABLE_BYTES];
    let fits = [Value::Bytes(full.clone()), Value::Bytes(Vec::new())];
    let image = layout.encode(&dictionary, &fits).unwrap().image;
    layout.check(&dictionary, &image).unwrap();
    let too_long = [Value::Bytes(full), Value::Bytes(vec![7])];
    let error = layout.encode(&dictionary, &too_long).unwrap_err();
    assert!(matches!(error, ValueError::TooLong { .. }), "{error}");
}

/// Damaged images: `check` never panics; whatever it passes can be read, and is the one image of
/// the values it gives.
#[test]
fn hostile_images_do_no_harm() {
    let dictionary = airports();
    let airport = class(&dictionary, "Airport");
    let layout = dictionary.layout(airport.id);
    let mut runner = TestRunner::deterministic();
    let strategy = record(&dictionary, airport);
    let images: Vec<Vec<u8>> = (0..50)
        .map(|_| {
            let values = strategy.new_tree(&mut runner).unwrap().current();
            layout.encode(&dictionary, &values).unwrap().image
        })
        .collect();
    let mut random = Random::new(1);
    let mut passed = 0;
    for round in 0..100_000 {
        let mut image = images[round % images.len()].clone();
        random.damage(&mut image);
        if layout.check(&dictionary, &image).is_err() {
            continue;
        }
        passed += 1;
        let record = RecordRef::new(&dictionary, airport, &image);
        let values = record.values();
        let again = layout.update(&dictionary, &image, &as_changes(airport, &values)).unwrap();
        assert_eq!(again.image, image, "two images of {values:?}");
        for index in &airport.indexes {
            let key = dictionary.key(index, record);
            dictionary.key_values(index, &key.bytes).unwrap();
        }
    }
    assert!((1_000..90_000).contains(&passed), "the damage is too much or too little: {passed}");
}

#[test]
fn random_bytes_are_refused_without_much_work() {
    let dictionary =
        Dictionary::parse("declare database d; class C { vector<vector<boolean>> v; };").unwrap();
    let layout = dictionary.layout(dictionary.classes()[0].id);
    // A count of four thousand million items in four bytes.
    let image = [4, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF];
    assert!(layout.check(&dictionary, &image).is_err());
    assert!(layout.check(&dictionary, &[]).is_err());
}
