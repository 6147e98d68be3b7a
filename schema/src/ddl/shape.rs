//! What types add up to: structs that contain themselves, records too large, references that
//! cross from replicated to local classes.

use super::error::Errors;
use super::syntax::{Declarations, FieldSyntax};
use crate::{ClassDef, FieldDef, StructDef, StructId, Type};

/// How deep structs may nest. Bounds every recursion over values.
const MAX_STRUCT_DEPTH: usize = 16;

/// The most values a record may have before any vector is filled: each field counts one, each
/// array element and struct field again. Bounds what one new record costs.
const MAX_VALUES: u64 = 1 << 18;

/// Reports classes whose records would be too large or refer where they must not.
pub(crate) fn check_shapes(
    declarations: &Declarations,
    structs: &[StructDef],
    classes: &[ClassDef],
    errors: &mut Errors<'_>,
) {
    let mut shapes =
        Shapes { declarations, structs, known: vec![Known::No; structs.len()], errors };
    for structure in structs {
        shapes.structure(structure.id, 1);
    }
    let sound = shapes.known.iter().all(|known| matches!(known, Known::Shape(_)));
    if !sound {
        return;
    }
    for (class, syntax) in classes.iter().zip(&declarations.classes) {
        let values: u64 =
            class.fields.iter().map(|field| shapes.values(&field.ty)).fold(0, u64::saturating_add);
        if values > MAX_VALUES {
            let message = format!("a record has at most {MAX_VALUES} values");
            shapes.errors.add(&syntax.name.span, message);
        }
        if !class.local {
            for (field, written) in class.fields.iter().zip(&syntax.fields) {
                shapes.check_references(field, written, classes);
            }
        }
    }
}

#[derive(Clone, Copy)]
enum Known {
    No,
    /// Being looked at: to meet it again means it contains itself.
    Open,
    /// Wrong, and reported.
    Broken,
    Shape(Shape),
}

#[derive(Clone, Copy)]
struct Shape {
    values: u64,
    depth: usize,
}

struct Shapes<'a, 't> {
    declarations: &'a Declarations,
    structs: &'a [StructDef],
    known: Vec<Known>,
    errors: &'a mut Errors<'t>,
}

impl Shapes<'_, '_> {
    /// Looks at a struct at this depth, and at all it contains.
    fn structure(&mut self, id: StructId, depth: usize) -> Option<Shape> {
        let number = id.0 as usize;
        match self.known[number] {
            Known::Shape(shape) => return Some(shape),
            Known::Broken => return None,
            Known::Open | Known::No => {}
        }
        self.known[number] = Known::Open;
        let mut shape = Some(Shape { values: 0, depth: 1 });
        for (field, written) in
            self.structs[number].fields.iter().zip(&self.declarations.structs[number].fields)
        {
            shape = match (self.field(field, written, depth), shape) {
                (Some(inner), Some(shape)) => Some(Shape {
                    values: shape.values.saturating_add(inner.values),
                    depth: shape.depth.max(inner.depth + 1),
                }),
                _ => None,
            };
        }
        let too_deep = shape.is_some_and(|shape| shape.depth > MAX_STRUCT_DEPTH);
        if too_deep {
            let message = format!("structs nest deeper than {MAX_STRUCT_DEPTH}");
            self.errors.add(&self.declarations.structs[number].name.span, message);
            shape = None;
        }
        self.known[number] = shape.map_or(Known::Broken, Known::Shape);
        shape
    }

    fn field(&mut self, field: &FieldDef, written: &FieldSyntax, depth: usize) -> Option<Shape> {
        let Some(inner) = struct_inside(&field.ty) else {
            return Some(Shape { values: self.values(&field.ty), depth: 0 });
        };
        if matches!(self.known[inner.0 as usize], Known::Open) {
            let name = &self.structs[inner.0 as usize].name;
            let message = format!("struct `{name}` contains itself");
            let hint = Some("refer to a record of a class with `ref<class>`".to_owned());
            self.errors.add_with_hint(&written.ty.name.span, message, hint);
            return None;
        }
        if depth == MAX_STRUCT_DEPTH {
            let message = format!("structs nest deeper than {MAX_STRUCT_DEPTH}");
            self.errors.add(&written.ty.name.span, message);
            return None;
        }
        let shape = self.structure(inner, depth + 1)?;
        Some(Shape { values: self.values(&field.ty), depth: shape.depth })
    }

    /// How many values an unfilled value of the type has; its structs are known.
    fn values(&self, ty: &Type) -> u64 {
        match ty {
            Type::Array(item, count) => {
                self.values(item).saturating_mul(u64::from(*count)).saturating_add(1)
            }
            Type::Struct(id) => match self.known[id.0 as usize] {
                Known::Shape(shape) => shape.values.saturating_add(1),
                Known::No | Known::Open | Known::Broken => 1,
            },
            _ => 1,
        }
    }

    /// Reports a reference from a replicated class to a local one: other nodes do not have its
    /// target.
    fn check_references(&mut self, field: &FieldDef, written: &FieldSyntax, classes: &[ClassDef]) {
        let Some(target) = self.local_target(&field.ty, classes) else {
            return;
        };
        let message = format!("a replicated class refers to the local class `{target}`");
        let hint = Some(format!("make this class `local`, or `{target}` replicated"));
        self.errors.add_with_hint(&written.ty.name.span, message, hint);
    }

    fn local_target<'c>(&self, ty: &Type, classes: &'c [ClassDef]) -> Option<&'c str> {
        match ty {
            Type::Ref(id) => {
                let target = &classes[id.0 as usize];
                target.local.then_some(target.name.as_str())
            }
            Type::Vector(item) | Type::Array(item, _) => self.local_target(item, classes),
            Type::Struct(id) => {
                let mut fields = self.structs[id.0 as usize].fields.iter();
                fields.find_map(|field| self.local_target(&field.ty, classes))
            }
            _ => None,
        }
    }
}

fn struct_inside(ty: &Type) -> Option<StructId> {
    match ty {
        Type::Struct(id) => Some(*id),
        Type::Vector(item) | Type::Array(item, _) => struct_inside(item),
        _ => None,
    }
}
