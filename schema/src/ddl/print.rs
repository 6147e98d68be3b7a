//! A dictionary back to DDL, in one canonical form: what nodes compare to know that they agree.

use std::fmt::Write as _;

use crate::{
    ClassDef, Dictionary, EventKind, FieldDef, IndexDef, IndexKind, IndexPart, Type, Value,
};

impl Dictionary {
    /// The dictionary as DDL. Equal dictionaries give equal text, and parsing the text gives the
    /// dictionary again.
    pub fn to_ddl(&self) -> String {
        let mut out = format!("declare database {};\n", self.name());
        for declared in self.enums() {
            put(&mut out, format_args!("\nenum {} {{\n", declared.name));
            for (name, number) in &declared.members {
                put(&mut out, format_args!("    {name} = {number},\n"));
            }
            out.push_str("};\n");
        }
        for declared in self.structs() {
            put(&mut out, format_args!("\nstruct {} {{\n", declared.name));
            declared.fields.iter().for_each(|field| self.put_field(&mut out, field));
            out.push_str("};\n");
        }
        for class in self.classes() {
            let local = if class.local { "local " } else { "" };
            put(&mut out, format_args!("\n{local}class {} {{\n", class.name));
            class.fields.iter().for_each(|field| self.put_field(&mut out, field));
            class.indexes.iter().for_each(|index| self.put_index(&mut out, class, index));
            if class.list {
                out.push_str("    list;\n");
            }
            for event in &class.events {
                let kind = match event.kind {
                    EventKind::New => "new".to_owned(),
                    EventKind::Update => "update".to_owned(),
                    EventKind::Delete => "delete".to_owned(),
                    EventKind::Field(id) => format!("{} update", class.fields[id.0 as usize].name),
                };
                put(&mut out, format_args!("    event <{kind}> {};\n", event.name));
            }
            out.push_str("};\n");
        }
        out
    }

    fn put_field(&self, out: &mut String, field: &FieldDef) {
        let (ty, count) = match &field.ty {
            Type::Array(item, count) => (item.display(self), format!("[{count}]")),
            ty => (ty.display(self), String::new()),
        };
        let nullable = if field.nullable { "nullable " } else { "" };
        put(out, format_args!("    {nullable}{ty} {}{count}", field.name));
        if let Some(default) = &field.default {
            put(out, format_args!(" = {}", self.literal(&field.ty, default)));
        }
        out.push_str(";\n");
    }

    fn put_index(&self, out: &mut String, class: &ClassDef, index: &IndexDef) {
        let unique = if index.unique { "unique " } else { "" };
        let kind = match index.kind {
            IndexKind::Tree => "tree",
            IndexKind::Hash => "hash",
        };
        let parts: Vec<String> =
            index.parts.iter().map(|part| self.part_text(class, part)).collect();
        put(out, format_args!("    {unique}{kind}<{}> {};\n", parts.join(", "), index.name));
    }

    /// An index part as DDL writes it, such as `position.lat desc`.
    fn part_text(&self, class: &ClassDef, part: &IndexPart) -> String {
        let mut fields = &class.fields;
        let mut names = Vec::with_capacity(part.path.len());
        for id in &part.path {
            let field = &fields[id.0 as usize];
            names.push(field.name.as_str());
            if let Type::Struct(id) = &field.ty {
                fields = &self.structs[id.0 as usize].fields;
            }
        }
        let order = if part.descending { " desc" } else { "" };
        format!("{}{order}", names.join("."))
    }

    fn literal(&self, ty: &Type, value: &Value) -> String {
        match value {
            Value::Boolean(value) => value.to_string(),
            Value::Signed(number) | Value::DateTime(number) => number.to_string(),
            Value::Unsigned(number) | Value::Time(number) => number.to_string(),
            Value::Date(days) => days.to_string(),
            Value::Float(number) => format!("{number:?}"),
            Value::Double(number) => format!("{number:?}"),
            Value::Text(text) => quoted(text),
            Value::Bytes(bytes) => quoted(&String::from_utf8_lossy(bytes)),
            Value::Enum(number) => match ty {
                Type::Enum(id) => {
                    let name = self.enums[id.0 as usize].member(*number);
                    name.expect("defaults are checked").to_owned()
                }
                _ => unreachable!("only enum fields have enum members as default"),
            },
            Value::Null | Value::Struct(_) | Value::List(_) | Value::Ref(_) => {
                unreachable!("DDL has no such default: {value:?}")
            }
        }
    }
}

/// Text in quotes, so that it reads back as it is.
pub(crate) fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for char in text.chars() {
        match char {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\0' => out.push_str("\\0"),
            '"' | '\\' => out.extend(['\\', char]),
            char => out.push(char),
        }
    }
    out.push('"');
    out
}

fn put(out: &mut String, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("a string takes all that is written");
}
