//! `#[derive(Class)]`, `#[derive(Struct)]` and `#[derive(Enum)]`: Rust types as classes, structs
//! and enums of a dictionary.
//!
//! Generated code only names fields and types and calls `quorate_schema::typed`; what a type
//! stands for is decided there, by traits. The documentation users read is that of
//! `quorate_schema::Class`.

mod attributes;
mod generate;

use proc_macro::TokenStream;
use syn::{DeriveInput, parse_macro_input};

/// Makes a struct a class. See the trait `Class` for its attributes and the types of fields.
#[proc_macro_derive(Class, attributes(class))]
pub fn derive_class(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    generate::class(&input).unwrap_or_else(|error| error.into_compile_error()).into()
}

/// Makes a struct one that fields of classes can have. Takes the attributes of a class's fields,
/// and `#[class(name = "..", crate = "..")]` for itself.
#[proc_macro_derive(Struct, attributes(class))]
pub fn derive_struct(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    generate::structure(&input).unwrap_or_else(|error| error.into_compile_error()).into()
}

/// Makes an enum without data one that fields of classes can have; members have the numbers the
/// Rust enum gives them. Takes `#[class(name = "..", crate = "..")]`, members take
/// `#[class(name = "..")]`.
#[proc_macro_derive(Enum, attributes(class))]
pub fn derive_enum(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    generate::enumeration(&input).unwrap_or_else(|error| error.into_compile_error()).into()
}
