//! DDL as written: declarations by name, with their places, nothing checked but the syntax.

use std::ops::Range;

/// A name and where it stands.
#[derive(Clone, Debug)]
pub(crate) struct Name {
    pub(crate) text: String,
    pub(crate) span: Range<usize>,
}

/// All declarations of a text, by kind.
#[derive(Clone, Debug, Default)]
pub(crate) struct Declarations {
    pub(crate) databases: Vec<Name>,
    pub(crate) enums: Vec<EnumSyntax>,
    pub(crate) structs: Vec<StructSyntax>,
    pub(crate) classes: Vec<ClassSyntax>,
    /// True if a declaration could not be read, so that a name not found may be its.
    pub(crate) incomplete: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct EnumSyntax {
    pub(crate) name: Name,
    pub(crate) members: Vec<(Name, Option<NumberSyntax>)>,
}

#[derive(Clone, Debug)]
pub(crate) struct StructSyntax {
    pub(crate) name: Name,
    pub(crate) fields: Vec<FieldSyntax>,
    /// False if a field could not be read.
    pub(crate) complete: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct ClassSyntax {
    pub(crate) name: Name,
    pub(crate) local: bool,
    pub(crate) fields: Vec<FieldSyntax>,
    pub(crate) indexes: Vec<IndexSyntax>,
    pub(crate) events: Vec<EventSyntax>,
    pub(crate) list: bool,
    /// False if a member could not be read.
    pub(crate) complete: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct FieldSyntax {
    pub(crate) name: Name,
    pub(crate) nullable: bool,
    pub(crate) ty: TypeSyntax,
    /// The `[n]` after the name.
    pub(crate) count: Option<NumberSyntax>,
    pub(crate) default: Option<LiteralSyntax>,
}

/// `name` or `name<argument>`.
#[derive(Clone, Debug)]
pub(crate) struct TypeSyntax {
    pub(crate) name: Name,
    pub(crate) argument: Option<ArgumentSyntax>,
}

#[derive(Clone, Debug)]
pub(crate) enum ArgumentSyntax {
    Number(NumberSyntax),
    Type(Box<TypeSyntax>),
}

/// A whole number; large enough for any literal, so that range is a matter of types.
#[derive(Clone, Debug)]
pub(crate) struct NumberSyntax {
    pub(crate) value: i128,
    pub(crate) span: Range<usize>,
}

#[derive(Clone, Debug)]
pub(crate) struct LiteralSyntax {
    pub(crate) literal: Literal,
    pub(crate) span: Range<usize>,
}

#[derive(Clone, Debug)]
pub(crate) enum Literal {
    Number(i128),
    /// As written, sign included: how many bits it is rounded to depends on the type.
    Float(String),
    Text(String),
    /// `true`, `false`, `null` or the member of an enum.
    Word(String),
}

#[derive(Clone, Debug)]
pub(crate) struct IndexSyntax {
    pub(crate) name: Name,
    pub(crate) tree: bool,
    pub(crate) unique: bool,
    pub(crate) parts: Vec<PartSyntax>,
}

#[derive(Clone, Debug)]
pub(crate) struct PartSyntax {
    pub(crate) path: Vec<Name>,
    /// The place of `desc`.
    pub(crate) descending: Option<Range<usize>>,
}

impl PartSyntax {
    /// The path as written.
    pub(crate) fn text(&self) -> String {
        self.path.iter().map(|name| name.text.as_str()).collect::<Vec<_>>().join(".")
    }

    /// The place of the whole path.
    pub(crate) fn span(&self) -> Range<usize> {
        let first = self.path.first().expect("a path has at least one name");
        let last = self.path.last().expect("a path has at least one name");
        first.span.start..last.span.end
    }
}

#[derive(Clone, Debug)]
pub(crate) struct EventSyntax {
    pub(crate) name: Name,
    pub(crate) kind: EventKindSyntax,
}

#[derive(Clone, Debug)]
pub(crate) enum EventKindSyntax {
    New,
    Update,
    Delete,
    Field(Name),
}
