//! The data definition language: text to [`Dictionary`] and back.
//!
//! ```text
//! text     = { "declare" "database" name ";" | enum | struct | class }
//! enum     = "enum" name "{" name [ "=" number ] { "," name [ "=" number ] } "}" [ ";" ]
//! struct   = "struct" name "{" { field } "}" [ ";" ]
//! class    = { "local" | "persistent" | "transient" } "class" name "{" { member } "}" [ ";" ]
//! member   = field | index | event | "list" ";" | "autoid" [ "[" number "]" ] ";"
//! field    = [ "nullable" | "optional" ] type name [ "[" number "]" ] [ "=" literal ] ";"
//! type     = name [ "<" ( number | type ) ">" ]
//! index    = [ "unique" | "nonunique" ] ( "tree" | "hash" ) "<" part { "," part } ">" name
//!            [ "[" number "]" ] ";"
//! part     = name { "." name } [ "asc" | "desc" ]
//! event    = "event" "<" ( "new" | "update" | "delete" | name "update" ) ">" name ";"
//! literal  = [ "-" ] number | text in quotes | "true" | "false" | "null" | enum member
//! ```
//!
//! Declarations may refer to later ones. `persistent` and `transient` and the sizes of indexes are
//! accepted for the sake of existing texts and change nothing: where a database is stored is a
//! parameter of opening it. `autoid;` stands for a field `autoid` of type `autoid` and an index
//! `unique hash<autoid> by_autoid`. `autoid_t<C>` is `unsigned<8>`. Numbers may be hexadecimal, and
//! an enum member may be given by its number.
//!
//! `token` makes tokens, `parse` declarations, `types`, `check` and `shape` the dictionary;
//! `print` writes it again. All errors of a text are reported at once, with their places (`error`).

mod check;
mod error;
mod parse;
mod print;
mod shape;
mod syntax;
mod token;
mod types;

pub use error::{SchemaError, SchemaErrors};
pub(crate) use print::quoted;

use crate::Dictionary;
use error::Errors;

/// The most bytes of DDL text that are read: 16 MiB.
pub const MAX_DDL_BYTES: usize = 16 << 20;

impl Dictionary {
    /// The dictionary that `text` declares, or everything that is wrong with the text (up to a
    /// hundred errors). See the module for the grammar.
    pub fn parse(text: &str) -> Result<Dictionary, SchemaErrors> {
        let mut errors = Errors::new(text);
        if text.len() > MAX_DDL_BYTES {
            errors.add(&(0..0), format!("a text of more than {MAX_DDL_BYTES} bytes"));
        }
        let mut dictionary = None;
        if errors.is_empty() {
            let tokens = token::tokens(text, &mut errors);
            let declarations = parse::declarations(&tokens, &mut errors);
            dictionary = check::dictionary(&declarations, &mut errors);
        }
        errors.finish()?;
        Ok(dictionary.expect("without errors there is a dictionary"))
    }
}
