//! What derives say about wrong attributes and shapes. The messages are ours, not the compiler's.

use quorate_schema::{Class, Enum};

#[derive(Class)]
#[class(crate = "quorate_schema", indx(tree(name)))]
struct Misspelled {
    name: String,
}

#[derive(Class)]
#[class(crate = "quorate_schema", index(tree(nmae)))]
struct UnknownField {
    name: String,
}

#[derive(Class)]
#[class(crate = "quorate_schema", index(unique))]
struct NoKey {
    name: String,
}

#[derive(Class)]
#[class(crate = "quorate_schema")]
struct UnknownAttribute {
    #[class(chars = 4)]
    name: String,
}

#[derive(Class)]
#[class(crate = "quorate_schema")]
struct Tuple(i32);

#[derive(Enum)]
#[class(crate = "quorate_schema")]
enum WithData {
    A(i32),
}

fn main() {}
