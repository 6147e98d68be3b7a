//! Declarations to a dictionary: everything that is wrong with them, or the dictionary.
//!
//! Every invariant that the dictionary's module lists is established here. After an error the
//! check goes on with what can still be judged; names that may belong to a declaration lost to a
//! syntax error are not complained about.

use std::collections::HashSet;

use super::error::{Errors, did_you_mean};
use super::shape::check_shapes;
use super::syntax::*;
use super::types::{Names, Types, is_broken};
use crate::{
    ClassDef, ClassId, Dictionary, EnumDef, EnumId, EventDef, EventKind, FieldDef, FieldId,
    IndexDef, IndexId, IndexKind, IndexPart, StructDef, StructId, Type,
};

/// The most classes, and the most structs and enums, of a dictionary.
pub(crate) const MAX_DECLARATIONS: usize = 65_536;
/// The most fields of a class or struct, and the most members of an enum.
pub(crate) const MAX_FIELDS: usize = 4_096;
/// The most indexes of a class.
pub(crate) const MAX_INDEXES: usize = 256;
/// The most events of a class.
pub(crate) const MAX_EVENTS: usize = 256;
/// The most parts of an index key.
pub(crate) const MAX_PARTS: usize = 16;
/// The most bytes of a name.
pub(crate) const MAX_NAME_BYTES: usize = 255;

/// The structs, checked and as written.
struct Structs<'a> {
    checked: &'a [StructDef],
    written: &'a [StructSyntax],
}

/// The dictionary of the declarations; none if there are errors.
pub(crate) fn dictionary(
    declarations: &Declarations,
    errors: &mut Errors<'_>,
) -> Option<Dictionary> {
    let name = database_name(declarations, errors);
    check_limits(declarations, errors);
    if errors.are_enough() {
        return None;
    }
    let names = Names::collect(declarations, errors);
    let enums: Vec<EnumDef> = declarations
        .enums
        .iter()
        .enumerate()
        .map(|(number, declared)| enumeration(EnumId(number as u32), declared, errors))
        .collect();
    let mut types = Types { names: &names, enums: &enums, errors };
    let structs: Vec<StructDef> = declarations
        .structs
        .iter()
        .enumerate()
        .map(|(number, declared)| structure(StructId(number as u32), declared, &mut types))
        .collect();
    let checked = Structs { checked: &structs, written: &declarations.structs };
    let mut classes: Vec<ClassDef> = Vec::with_capacity(declarations.classes.len());
    for (number, declared) in declarations.classes.iter().enumerate() {
        let mut types = Types { names: &names, enums: &enums, errors };
        classes.push(class(ClassId(number as u32), declared, &checked, &mut types));
    }
    check_shapes(declarations, &structs, &classes, errors);
    if !errors.is_empty() {
        return None;
    }
    Some(Dictionary::assemble(name?, enums, structs, classes))
}

fn database_name(declarations: &Declarations, errors: &mut Errors<'_>) -> Option<String> {
    for again in declarations.databases.iter().skip(1) {
        errors.add(&again.span, "a text declares one database");
    }
    let first = declarations.databases.first();
    if first.is_none() && !declarations.incomplete {
        let message = "the database has no name".to_owned();
        errors.push(&(0..0), message, vec!["`declare database <name>;`".to_owned()], None);
    }
    first.map(|name| name.text.clone())
}

fn check_limits(declarations: &Declarations, errors: &mut Errors<'_>) {
    let too_many = |what: &str| format!("more than {MAX_DECLARATIONS} {what}");
    if let Some(declared) = declarations.enums.get(MAX_DECLARATIONS) {
        errors.add(&declared.name.span, too_many("enums"));
    }
    if let Some(declared) = declarations.structs.get(MAX_DECLARATIONS) {
        errors.add(&declared.name.span, too_many("structs"));
    }
    if let Some(declared) = declarations.classes.get(MAX_DECLARATIONS) {
        errors.add(&declared.name.span, too_many("classes"));
    }
    let databases = declarations.databases.iter();
    let declared = databases
        .chain(declarations.enums.iter().map(|declared| &declared.name))
        .chain(declarations.structs.iter().map(|declared| &declared.name))
        .chain(declarations.classes.iter().map(|declared| &declared.name));
    for name in declared {
        check_name(name, errors);
    }
}

fn check_name(name: &Name, errors: &mut Errors<'_>) {
    if name.text.len() > MAX_NAME_BYTES {
        errors.add(&name.span, format!("a name of more than {MAX_NAME_BYTES} bytes"));
    }
}

fn enumeration(id: EnumId, syntax: &EnumSyntax, errors: &mut Errors<'_>) -> EnumDef {
    if syntax.members.is_empty() {
        errors.add(&syntax.name.span, format!("enum `{}` has no member", syntax.name.text));
    }
    if let Some((member, _)) = syntax.members.get(MAX_FIELDS) {
        errors.add(&member.span, format!("more than {MAX_FIELDS} members"));
    }
    let mut members = Vec::with_capacity(syntax.members.len().max(1));
    let mut names = HashSet::new();
    let mut numbers = HashSet::new();
    let mut next: i128 = 0;
    for (name, number) in &syntax.members {
        check_name(name, errors);
        let span = number.as_ref().map_or(&name.span, |number| &number.span);
        let value = number.as_ref().map_or(next, |number| number.value);
        if name.text == "null" {
            errors.add(&name.span, "`null` is a word of the language");
        }
        if !names.insert(name.text.as_str()) {
            errors.add(&name.span, format!("member `{}` is declared twice", name.text));
        }
        match i32::try_from(value) {
            Err(_) => errors.add(span, format!("{value} does not fit 32 bits, signed")),
            Ok(_) if !numbers.insert(value) => {
                errors.add(span, format!("{value} is the number of two members"));
            }
            Ok(value) => members.push((name.text.clone(), value)),
        }
        next = value + 1;
    }
    EnumDef { id, name: syntax.name.text.clone(), members }
}

fn structure(id: StructId, syntax: &StructSyntax, types: &mut Types<'_, '_, '_>) -> StructDef {
    if syntax.fields.is_empty() && syntax.complete {
        let message = format!("struct `{}` has no field", syntax.name.text);
        types.errors.add(&syntax.name.span, message);
    }
    let fields = fields(&syntax.fields, false, types);
    StructDef { id, name: syntax.name.text.clone(), fields }
}

fn fields(syntax: &[FieldSyntax], in_class: bool, types: &mut Types<'_, '_, '_>) -> Vec<FieldDef> {
    if let Some(field) = syntax.get(MAX_FIELDS) {
        types.errors.add(&field.name.span, format!("more than {MAX_FIELDS} fields"));
    }
    let mut names = HashSet::new();
    let mut fields = Vec::with_capacity(syntax.len());
    for field in syntax.iter().take(MAX_FIELDS) {
        check_name(&field.name, types.errors);
        if !names.insert(field.name.text.as_str()) {
            let message = format!("field `{}` is declared twice", field.name.text);
            types.errors.add(&field.name.span, message);
        }
        fields.push(types.field(field, in_class));
    }
    fields
}

fn class(
    id: ClassId,
    syntax: &ClassSyntax,
    structs: &Structs<'_>,
    types: &mut Types<'_, '_, '_>,
) -> ClassDef {
    if syntax.fields.is_empty() && syntax.complete {
        let message = format!("class `{}` has no field", syntax.name.text);
        types.errors.add(&syntax.name.span, message);
    }
    let mut class = ClassDef {
        id,
        name: syntax.name.text.clone(),
        local: syntax.local,
        fields: fields(&syntax.fields, true, types),
        indexes: Vec::with_capacity(syntax.indexes.len()),
        autoid: None,
        list: syntax.list,
        events: Vec::new(),
    };
    let errors = &mut *types.errors;
    for (number, (field, written)) in class.fields.iter().zip(&syntax.fields).enumerate() {
        if field.ty == Type::Autoid {
            if class.autoid.is_some() {
                errors.add(&written.name.span, "a class has one autoid at most");
            } else {
                class.autoid = Some(FieldId(number as u32));
            }
        }
    }
    check_index_names(syntax, errors);
    for index in syntax.indexes.iter().take(MAX_INDEXES) {
        if let Some(index) = self::index(index, syntax, &class, structs, errors) {
            class.indexes.push(index);
        }
    }
    events(syntax, &mut class, errors);
    class
}

fn check_index_names(syntax: &ClassSyntax, errors: &mut Errors<'_>) {
    if let Some(index) = syntax.indexes.get(MAX_INDEXES) {
        errors.add(&index.name.span, format!("more than {MAX_INDEXES} indexes"));
    }
    let fields: HashSet<&str> =
        syntax.fields.iter().map(|field| field.name.text.as_str()).collect();
    let mut names = HashSet::new();
    for index in &syntax.indexes {
        let name = index.name.text.as_str();
        check_name(&index.name, errors);
        if fields.contains(name) {
            errors.add(&index.name.span, format!("`{name}` is the name of a field already"));
        } else if !names.insert(name) {
            errors.add(&index.name.span, format!("index `{name}` is declared twice"));
        }
    }
}

/// An index; none if a part of it could not be made out, which was reported where it had to be.
fn index(
    syntax: &IndexSyntax,
    class_syntax: &ClassSyntax,
    class: &ClassDef,
    structs: &Structs<'_>,
    errors: &mut Errors<'_>,
) -> Option<IndexDef> {
    if let Some(part) = syntax.parts.get(MAX_PARTS) {
        errors.add(&part.span(), format!("more than {MAX_PARTS} parts"));
        return None;
    }
    let mut parts: Vec<IndexPart> = Vec::with_capacity(syntax.parts.len());
    let mut complete = true;
    for written in &syntax.parts {
        if let (Some(span), false) = (&written.descending, syntax.tree) {
            errors.add(span, "a hash index has no order");
        }
        let Some(path) = part_path(written, class_syntax, class, structs, errors) else {
            complete = false;
            continue;
        };
        if parts.iter().any(|part| part.path == path) {
            errors.add(&written.span(), format!("`{}` is in the key twice", written.text()));
        }
        parts.push(IndexPart { path, descending: written.descending.is_some() });
    }
    let kind = if syntax.tree { IndexKind::Tree } else { IndexKind::Hash };
    let name = syntax.name.text.clone();
    // The dictionary numbers indexes when it is put together.
    let index =
        IndexDef { id: IndexId(0), class: class.id, name, kind, unique: syntax.unique, parts };
    complete.then_some(index)
}

fn part_path(
    part: &PartSyntax,
    class_syntax: &ClassSyntax,
    class: &ClassDef,
    structs: &Structs<'_>,
    errors: &mut Errors<'_>,
) -> Option<Vec<FieldId>> {
    let mut owner = format!("class `{}`", class.name);
    let mut fields = &class.fields;
    let mut complete = class_syntax.complete;
    let mut path = Vec::with_capacity(part.path.len());
    for (depth, name) in part.path.iter().enumerate() {
        let Some(position) = fields.iter().position(|field| field.name == name.text) else {
            if complete {
                let hint = did_you_mean(&name.text, fields.iter().map(|field| field.name.as_str()));
                let message = format!("{owner} has no field `{}`", name.text);
                errors.add_with_hint(&name.span, message, hint);
            }
            return None;
        };
        path.push(FieldId(position as u32));
        if is_broken(&fields[position].ty) {
            return None;
        }
        let last = depth + 1 == part.path.len();
        match (&fields[position].ty, last) {
            (Type::Struct(id), false) => {
                let inner = &structs.checked[id.0 as usize];
                owner = format!("struct `{}`", inner.name);
                fields = &inner.fields;
                complete = structs.written[id.0 as usize].complete;
            }
            (Type::Struct(id), true) => {
                let hint = structs.checked[id.0 as usize].fields.first().map(|field| {
                    format!("name a field of it, such as `{}.{}`", part.text(), field.name)
                });
                errors.add_with_hint(&name.span, "a struct cannot be part of a key", hint);
                return None;
            }
            (Type::Blob | Type::Vector(_) | Type::Array(..), _) => {
                let kind = match &fields[position].ty {
                    Type::Blob => "a blob",
                    Type::Vector(_) => "a vector",
                    _ => "an array",
                };
                errors.add(&name.span, format!("{kind} cannot be part of a key"));
                return None;
            }
            (_, true) => {}
            (_, false) => {
                errors.add(&name.span, format!("`{}` is no struct and has no fields", name.text));
                return None;
            }
        }
    }
    Some(path)
}

fn events(syntax: &ClassSyntax, class: &mut ClassDef, errors: &mut Errors<'_>) {
    if let Some(event) = syntax.events.get(MAX_EVENTS) {
        errors.add(&event.name.span, format!("more than {MAX_EVENTS} events"));
    }
    let mut names = HashSet::new();
    for event in syntax.events.iter().take(MAX_EVENTS) {
        check_name(&event.name, errors);
        if !names.insert(event.name.text.as_str()) {
            errors.add(&event.name.span, format!("event `{}` is declared twice", event.name.text));
        }
        let kind = match &event.kind {
            EventKindSyntax::New => EventKind::New,
            EventKindSyntax::Update => EventKind::Update,
            EventKindSyntax::Delete => EventKind::Delete,
            EventKindSyntax::Field(field) => match class.field(&field.text) {
                Some((id, _)) => EventKind::Field(id),
                None => {
                    if syntax.complete {
                        let names = class.fields.iter().map(|field| field.name.as_str());
                        let hint = did_you_mean(&field.text, names);
                        let message =
                            format!("class `{}` has no field `{}`", class.name, field.text);
                        errors.add_with_hint(&field.span, message, hint);
                    }
                    continue;
                }
            },
        };
        class.events.push(EventDef { name: event.name.text.clone(), kind });
    }
}
