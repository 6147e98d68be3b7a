//! Types and defaults by name: what DDL writes to what the dictionary holds.

use std::collections::HashMap;
use std::ops::Range;

use super::error::{Errors, did_you_mean};
use super::syntax::{ArgumentSyntax, Declarations, FieldSyntax, Literal, Name, TypeSyntax};
use crate::plain::{DAY_NS, integer};
use crate::{ClassId, EnumDef, EnumId, FieldDef, MAX_VARIABLE_BYTES, StructId, Type, Value};

/// The most elements of an array.
pub(crate) const MAX_ARRAY: i128 = 65_536;

/// Every word that names a type. None of them may name a declaration.
const TYPE_WORDS: &[&str] = &[
    "signed",
    "unsigned",
    "int1",
    "int2",
    "int4",
    "int8",
    "uint1",
    "uint2",
    "uint4",
    "uint8",
    "float",
    "double",
    "boolean",
    "bool",
    "char",
    "string",
    "binary",
    "varbinary",
    "blob",
    "date",
    "time",
    "datetime",
    "ref",
    "autoid",
    "autoid_t",
    "vector",
];

/// Words that may name no declaration because they begin one, or a member.
const OTHER_WORDS: &[&str] = &[
    "declare",
    "database",
    "enum",
    "struct",
    "class",
    "local",
    "persistent",
    "transient",
    "nullable",
    "optional",
    "unique",
    "nonunique",
    "tree",
    "hash",
    "list",
    "event",
];

/// What a declared name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Named {
    Enum(EnumId),
    Struct(StructId),
    Class(ClassId),
}

/// All declared names.
pub(crate) struct Names<'d> {
    by_name: HashMap<&'d str, Named>,
    /// False if a declaration was lost to a syntax error: unknown names are not reported then.
    complete: bool,
}

impl<'d> Names<'d> {
    /// Collects the names; reports those declared twice or taken by the language.
    pub(crate) fn collect(declarations: &'d Declarations, errors: &mut Errors<'_>) -> Names<'d> {
        let mut names = Names { by_name: HashMap::new(), complete: !declarations.incomplete };
        for (number, declared) in declarations.enums.iter().enumerate() {
            names.add(&declared.name, Named::Enum(EnumId(number as u32)), errors);
        }
        for (number, declared) in declarations.structs.iter().enumerate() {
            names.add(&declared.name, Named::Struct(StructId(number as u32)), errors);
        }
        for (number, declared) in declarations.classes.iter().enumerate() {
            names.add(&declared.name, Named::Class(ClassId(number as u32)), errors);
        }
        names
    }

    fn add(&mut self, name: &'d Name, named: Named, errors: &mut Errors<'_>) {
        let text = name.text.as_str();
        if TYPE_WORDS.contains(&text) || OTHER_WORDS.contains(&text) {
            errors.add(&name.span, format!("`{text}` is a word of the language"));
        } else if self.by_name.contains_key(text) {
            errors.add(&name.span, format!("`{text}` is declared twice"));
        } else {
            self.by_name.insert(text, named);
        }
    }

    fn get(&self, name: &str) -> Option<Named> {
        self.by_name.get(name).copied()
    }
}

/// What stands for a type that could not be made out, so that no further errors follow from it:
/// one that no text can declare.
fn broken() -> Type {
    Type::Vector(Box::new(Type::Autoid))
}

/// True if the field's type could not be made out, which was reported.
pub(crate) fn is_broken(ty: &Type) -> bool {
    *ty == broken()
}

/// Resolves fields.
pub(crate) struct Types<'c, 'd, 't> {
    pub(crate) names: &'c Names<'d>,
    pub(crate) enums: &'c [EnumDef],
    pub(crate) errors: &'c mut Errors<'t>,
}

impl Types<'_, '_, '_> {
    /// A field of a struct or class.
    pub(crate) fn field(&mut self, syntax: &FieldSyntax, in_class: bool) -> FieldDef {
        let name = syntax.name.text.clone();
        let Some(ty) = self.field_type(syntax, in_class) else {
            return FieldDef { name, ty: broken(), nullable: true, default: None };
        };
        let nullable = syntax.nullable;
        if nullable && ty == Type::Autoid {
            self.errors.add(&syntax.name.span, "an autoid is never null");
        }
        let default = self.default(syntax, &ty);
        FieldDef { name, ty, nullable, default }
    }

    fn field_type(&mut self, syntax: &FieldSyntax, in_class: bool) -> Option<Type> {
        let ty = self.resolve(&syntax.ty)?;
        if ty == Type::Autoid && !in_class {
            self.errors.add(&syntax.ty.name.span, "only a class has an autoid, not a struct");
            return None;
        }
        let Some(count) = &syntax.count else {
            return Some(ty);
        };
        if !(1..=MAX_ARRAY).contains(&count.value) {
            let message = format!("an array has 1 to {MAX_ARRAY} elements");
            let hint = Some("use `vector<type>` for any number of values".to_owned());
            self.errors.add_with_hint(&count.span, message, hint);
            return None;
        }
        Some(Type::Array(Box::new(ty), count.value as u32))
    }

    fn resolve(&mut self, syntax: &TypeSyntax) -> Option<Type> {
        let name = syntax.name.text.as_str();
        let plain = match name {
            "int1" => Type::Signed(1),
            "int2" => Type::Signed(2),
            "int4" => Type::Signed(4),
            "int8" => Type::Signed(8),
            "uint1" => Type::Unsigned(1),
            "uint2" => Type::Unsigned(2),
            "uint4" => Type::Unsigned(4),
            "uint8" => Type::Unsigned(8),
            "float" => Type::Float,
            "double" => Type::Double,
            "boolean" | "bool" => Type::Boolean,
            "string" => Type::String,
            "blob" => Type::Blob,
            "date" => Type::Date,
            "time" => Type::Time,
            "datetime" => Type::DateTime,
            "autoid" => Type::Autoid,
            "signed" => return self.width(syntax).map(Type::Signed),
            "unsigned" => return self.width(syntax).map(Type::Unsigned),
            "char" => return self.length(syntax).map(Type::Char),
            "binary" | "varbinary" if syntax.argument.is_none() => Type::Binary(None),
            "binary" | "varbinary" => {
                return self.length(syntax).map(|limit| Type::Binary(Some(limit)));
            }
            "ref" => return self.class(syntax).map(Type::Ref),
            "autoid_t" => return self.class(syntax).map(|_| Type::Unsigned(8)),
            "vector" => return self.vector(syntax),
            _ => return self.declared(syntax),
        };
        self.no_argument(syntax)?;
        Some(plain)
    }

    fn declared(&mut self, syntax: &TypeSyntax) -> Option<Type> {
        let name = syntax.name.text.as_str();
        match self.names.get(name) {
            Some(named) => {
                self.no_argument(syntax)?;
                match named {
                    Named::Enum(id) => Some(Type::Enum(id)),
                    Named::Struct(id) => Some(Type::Struct(id)),
                    Named::Class(_) => {
                        let message = format!("`{name}` is a class, not a type");
                        let hint = Some(format!("refer to its records with `ref<{name}>`"));
                        self.errors.add_with_hint(&syntax.name.span, message, hint);
                        None
                    }
                }
            }
            None => {
                if self.names.complete {
                    let declared = self.names.by_name.iter();
                    let declared = declared.filter(|(_, named)| !matches!(named, Named::Class(_)));
                    let known = TYPE_WORDS.iter().copied().chain(declared.map(|(name, _)| *name));
                    let hint = did_you_mean(name, known);
                    let message = format!("unknown type `{name}`");
                    self.errors.add_with_hint(&syntax.name.span, message, hint);
                }
                None
            }
        }
    }

    fn no_argument(&mut self, syntax: &TypeSyntax) -> Option<()> {
        if syntax.argument.is_none() {
            return Some(());
        }
        let message = format!("`{}` takes nothing in `<>`", syntax.name.text);
        self.errors.add(&syntax.name.span, message);
        None
    }

    fn width(&mut self, syntax: &TypeSyntax) -> Option<u8> {
        match &syntax.argument {
            Some(ArgumentSyntax::Number(number)) if matches!(number.value, 1 | 2 | 4 | 8) => {
                Some(number.value as u8)
            }
            argument => {
                let span = argument_span(syntax, argument.as_ref());
                let message = format!("`{}` needs its size in bytes", syntax.name.text);
                let expected = ["1", "2", "4", "8"].map(|size| format!("`<{size}>`")).to_vec();
                self.errors.push(&span, message, expected, None);
                None
            }
        }
    }

    fn length(&mut self, syntax: &TypeSyntax) -> Option<u32> {
        match &syntax.argument {
            Some(ArgumentSyntax::Number(number))
                if (1..=MAX_VARIABLE_BYTES as i128).contains(&number.value) =>
            {
                Some(number.value as u32)
            }
            argument => {
                let span = argument_span(syntax, argument.as_ref());
                let name = &syntax.name.text;
                let message = format!("`{name}` needs a limit of 1 to {MAX_VARIABLE_BYTES} bytes");
                let hint = (name == "char").then(|| "`string` has no limit".to_owned());
                self.errors.push(&span, message, vec![format!("`{name}<n>`")], hint);
                None
            }
        }
    }

    fn class(&mut self, syntax: &TypeSyntax) -> Option<ClassId> {
        let Some(ArgumentSyntax::Type(target)) = &syntax.argument else {
            let message = format!("`{}` needs the name of a class", syntax.name.text);
            let expected = vec![format!("`{}<class>`", syntax.name.text)];
            self.errors.push(&syntax.name.span, message, expected, None);
            return None;
        };
        self.no_argument(target)?;
        let name = target.name.text.as_str();
        match self.names.get(name) {
            Some(Named::Class(id)) => return Some(id),
            Some(_) => self.errors.add(&target.name.span, format!("`{name}` is not a class")),
            None if self.names.complete => {
                let names = self.names.by_name.iter();
                let classes = names.filter(|(_, named)| matches!(named, Named::Class(_)));
                let hint = did_you_mean(name, classes.map(|(name, _)| *name));
                let message = format!("unknown class `{name}`");
                self.errors.add_with_hint(&target.name.span, message, hint);
            }
            None => {}
        }
        None
    }

    fn vector(&mut self, syntax: &TypeSyntax) -> Option<Type> {
        let Some(ArgumentSyntax::Type(item)) = &syntax.argument else {
            let message = "`vector` needs the type of its values".to_owned();
            let expected = vec!["`vector<type>`".to_owned()];
            self.errors.push(&syntax.name.span, message, expected, None);
            return None;
        };
        match self.resolve(item)? {
            Type::Autoid => {
                self.errors.add(&item.name.span, "there are no vectors of autoids");
                None
            }
            item => Some(Type::Vector(Box::new(item))),
        }
    }

    fn default(&mut self, syntax: &FieldSyntax, ty: &Type) -> Option<Value> {
        let default = syntax.default.as_ref()?;
        if matches!(&default.literal, Literal::Word(word) if word == "null") {
            if !syntax.nullable && !matches!(ty, Type::Ref(_)) {
                let hint = Some(format!("write `nullable {} ..`", syntax.ty.name.text));
                let message = format!("`{}` is not nullable", syntax.name.text);
                self.errors.add_with_hint(&default.span, message, hint);
            }
            return None;
        }
        match literal_value(ty, &default.literal, self.enums) {
            Ok(value) => Some(value),
            Err(Mismatch { message, hint }) => {
                self.errors.add_with_hint(&default.span, message, hint);
                None
            }
        }
    }
}

fn argument_span(syntax: &TypeSyntax, argument: Option<&ArgumentSyntax>) -> Range<usize> {
    match argument {
        Some(ArgumentSyntax::Number(number)) => number.span.clone(),
        Some(ArgumentSyntax::Type(ty)) => ty.name.span.clone(),
        None => syntax.name.span.clone(),
    }
}

/// Why a literal is no value of a type.
struct Mismatch {
    message: String,
    hint: Option<String>,
}

fn literal_value(ty: &Type, literal: &Literal, enums: &[EnumDef]) -> Result<Value, Mismatch> {
    let mismatch = |message: &str| Err(Mismatch { message: message.to_owned(), hint: None });
    match (ty, literal) {
        (Type::Boolean, Literal::Word(word)) if word == "true" => Ok(Value::Boolean(true)),
        (Type::Boolean, Literal::Word(word)) if word == "false" => Ok(Value::Boolean(false)),
        (Type::Boolean, _) => mismatch("the default of a boolean is `true` or `false`"),
        (Type::Signed(bytes) | Type::Unsigned(bytes), Literal::Number(number)) => {
            match integer(ty, *number) {
                Some(plain) => Ok(plain.to_value()),
                None => {
                    let kind = if matches!(ty, Type::Signed(_)) { "signed" } else { "unsigned" };
                    mismatch(&format!("{number} does not fit {kind}<{bytes}>"))
                }
            }
        }
        (Type::Signed(_) | Type::Unsigned(_), _) => mismatch("the default is a whole number"),
        (Type::Float, Literal::Number(_) | Literal::Float(_)) => {
            match float_text(literal).parse::<f32>() {
                Ok(value) if value.is_finite() => Ok(Value::Float(value)),
                _ => mismatch("the number does not fit a float"),
            }
        }
        (Type::Double, Literal::Number(_) | Literal::Float(_)) => {
            match float_text(literal).parse::<f64>() {
                Ok(value) if value.is_finite() => Ok(Value::Double(value)),
                _ => mismatch("the number does not fit a double"),
            }
        }
        (Type::Float | Type::Double, _) => mismatch("the default is a number"),
        (Type::Char(limit), Literal::Text(text)) if text.len() > *limit as usize => {
            mismatch(&format!("{} bytes do not fit char<{limit}>", text.len()))
        }
        (Type::Char(_) | Type::String, Literal::Text(text)) => Ok(Value::Text(text.clone())),
        (Type::Char(_) | Type::String, _) => mismatch("the default is text in quotes"),
        (Type::Binary(Some(limit)), Literal::Text(text)) if text.len() > *limit as usize => {
            mismatch(&format!("{} bytes do not fit binary<{limit}>", text.len()))
        }
        (Type::Binary(_) | Type::Blob, Literal::Text(text)) => {
            Ok(Value::Bytes(text.as_bytes().to_vec()))
        }
        (Type::Binary(_) | Type::Blob, _) => mismatch("the default is text in quotes"),
        (Type::Date | Type::Time | Type::DateTime, Literal::Number(number)) => {
            time_value(ty, *number).ok_or_else(|| Mismatch {
                message: format!("{number} is out of range"),
                hint: None,
            })
        }
        (Type::Date, _) => mismatch("the default is a number of days since 1970-01-01"),
        (Type::Time, _) => mismatch("the default is a number of nanoseconds since midnight"),
        (Type::DateTime, _) => mismatch("the default is a number of nanoseconds since 1970-01-01"),
        (Type::Enum(id), literal) => member_value(&enums[id.0 as usize], literal),
        (Type::Ref(_), _) => mismatch("a reference has no default but null"),
        (Type::Autoid, _) => mismatch("an autoid has no default: its counter fills it"),
        (Type::Struct(_) | Type::Vector(_) | Type::Array(..), _) => {
            mismatch("structs, vectors and arrays have no default of their own")
        }
    }
}

/// A member of an enum, by its name or number.
fn member_value(declared: &EnumDef, literal: &Literal) -> Result<Value, Mismatch> {
    let name = &declared.name;
    let members = || declared.members.iter().map(|(member, _)| member.as_str());
    let (member, message, hint) = match literal {
        Literal::Word(word) => {
            let message = format!("enum `{name}` has no member `{word}`");
            (declared.number(word), message, did_you_mean(word, members()))
        }
        Literal::Number(number) => {
            let member = i32::try_from(*number).ok().filter(|n| declared.member(*n).is_some());
            (member, format!("enum `{name}` has no member of number {number}"), None)
        }
        Literal::Float(_) | Literal::Text(_) => {
            (None, format!("the default is a member of `{name}`"), None)
        }
    };
    member.map(Value::Enum).ok_or(Mismatch { message, hint })
}

fn float_text(literal: &Literal) -> String {
    match literal {
        Literal::Number(number) => number.to_string(),
        Literal::Float(text) | Literal::Text(text) | Literal::Word(text) => text.clone(),
    }
}

fn time_value(ty: &Type, number: i128) -> Option<Value> {
    match ty {
        Type::Date => number.try_into().ok().map(Value::Date),
        Type::DateTime => number.try_into().ok().map(Value::DateTime),
        Type::Time => number.try_into().ok().filter(|ns| *ns < DAY_NS).map(Value::Time),
        _ => None,
    }
}
