//! The attribute `#[class(..)]` of types, fields and enum members.

use proc_macro2::TokenStream;
use quote::quote;
use syn::ext::IdentExt;
use syn::meta::ParseNestedMeta;
use syn::parse::{Parse, ParseStream};
use syn::punctuated::Punctuated;
use syn::spanned::Spanned;
use syn::{
    Attribute, Error, Expr, ExprLit, ExprPath, Ident, Lit, LitInt, LitStr, Path, Result, Token,
    UnOp,
};

/// What is said of a class, struct or enum.
pub(crate) struct TypeAttributes {
    pub(crate) name: Option<LitStr>,
    pub(crate) local: bool,
    pub(crate) list: bool,
    pub(crate) indexes: Vec<Index>,
    /// The path of the schema crate.
    pub(crate) schema: TokenStream,
}

/// `index(..)`.
pub(crate) struct Index {
    pub(crate) name: Option<String>,
    pub(crate) unique: bool,
    /// `tree` or `hash`.
    pub(crate) kind: &'static str,
    pub(crate) parts: Vec<Part>,
}

/// One part of an index key.
pub(crate) struct Part {
    pub(crate) path: Vec<Ident>,
    pub(crate) descending: bool,
}

/// The default of a field.
pub(crate) enum Default {
    /// A literal, in DDL.
    Literal(String),
    /// A constant or enum member of the program.
    Path(Box<ExprPath>),
}

/// What is said of a field.
pub(crate) struct FieldAttributes {
    pub(crate) name: Option<LitStr>,
    /// The kind, as a type of `typed::kind`.
    pub(crate) kind: Option<TokenStream>,
    pub(crate) default: Option<Default>,
}

impl TypeAttributes {
    /// Reads the attributes of a type; only a class may say more than `name` and `crate`.
    pub(crate) fn read(attributes: &[Attribute], is_class: bool) -> Result<TypeAttributes> {
        let mut read = TypeAttributes {
            name: None,
            local: false,
            list: false,
            indexes: Vec::new(),
            schema: quote!(::quorate::schema),
        };
        for attribute in attributes.iter().filter(|a| a.path().is_ident("class")) {
            attribute.parse_nested_meta(|meta| {
                if meta.path.is_ident("name") {
                    read.name = Some(meta.value()?.parse()?);
                } else if meta.path.is_ident("crate") {
                    let path: Path = meta.value()?.parse::<LitStr>()?.parse()?;
                    read.schema = quote!(#path);
                } else if is_class && meta.path.is_ident("local") {
                    read.local = true;
                } else if is_class && meta.path.is_ident("list") {
                    read.list = true;
                } else if is_class && meta.path.is_ident("index") {
                    read.indexes.push(index(&meta)?);
                } else if is_class {
                    let known = "expected `name`, `local`, `list`, `index` or `crate`";
                    return Err(meta.error(known));
                } else {
                    return Err(meta.error("expected `name` or `crate`"));
                }
                Ok(())
            })?;
        }
        Ok(read)
    }
}

impl FieldAttributes {
    /// Reads the attributes of a field or enum member; only a field may say more than `name`.
    pub(crate) fn read(attributes: &[Attribute], is_field: bool) -> Result<FieldAttributes> {
        let mut read = FieldAttributes { name: None, kind: None, default: None };
        for attribute in attributes.iter().filter(|a| a.path().is_ident("class")) {
            attribute.parse_nested_meta(|meta| {
                if meta.path.is_ident("name") {
                    read.name = Some(meta.value()?.parse()?);
                } else if is_field && meta.path.is_ident("default") {
                    read.default = Some(default(meta.value()?.parse()?)?);
                } else if let Some(kind) = kind(&meta).filter(|_| is_field) {
                    if read.kind.replace(kind?).is_some() {
                        return Err(meta.error("a field has one kind"));
                    }
                } else if is_field {
                    let known = "expected `name`, `default`, `autoid`, `char`, `binary`, `blob`, \
                                 `date`, `time` or `datetime`";
                    return Err(meta.error(known));
                } else {
                    return Err(meta.error("expected `name`"));
                }
                Ok(())
            })?;
        }
        Ok(read)
    }
}

/// The kind of field an attribute names; none if it names something else.
fn kind(meta: &ParseNestedMeta<'_>) -> Option<Result<TokenStream>> {
    let limit = || -> Result<LitInt> { meta.value()?.parse() };
    let name = meta.path.get_ident()?.to_string();
    Some(match name.as_str() {
        "autoid" => Ok(quote!(Autoid)),
        "blob" => Ok(quote!(Blob)),
        "date" => Ok(quote!(Date)),
        "time" => Ok(quote!(Time)),
        "datetime" => Ok(quote!(DateTime)),
        "char" => limit().map(|limit| quote!(Char<#limit>)),
        "binary" => limit().map(|limit| quote!(Binary<#limit>)),
        _ => return None,
    })
}

fn index(meta: &ParseNestedMeta<'_>) -> Result<Index> {
    let mut name: Option<LitStr> = None;
    let mut unique = false;
    let mut key: Option<(&'static str, Vec<Part>)> = None;
    meta.parse_nested_meta(|meta| {
        if meta.path.is_ident("name") {
            name = Some(meta.value()?.parse()?);
        } else if meta.path.is_ident("unique") {
            unique = true;
        } else if meta.path.is_ident("tree") || meta.path.is_ident("hash") {
            let kind = if meta.path.is_ident("tree") { "tree" } else { "hash" };
            let content;
            syn::parenthesized!(content in meta.input);
            let parts = Punctuated::<Part, Token![,]>::parse_terminated(&content)?;
            if parts.is_empty() {
                return Err(meta.error("an index has at least one field"));
            }
            if key.replace((kind, parts.into_iter().collect())).is_some() {
                return Err(meta.error("an index is one `tree(..)` or `hash(..)`"));
            }
        } else {
            return Err(meta.error("expected `name`, `unique`, `tree(..)` or `hash(..)`"));
        }
        Ok(())
    })?;
    let Some((kind, parts)) = key else {
        return Err(meta.error("an index needs `tree(..)` or `hash(..)`"));
    };
    Ok(Index { name: name.map(|name| name.value()), unique, kind, parts })
}

impl Parse for Part {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let mut path = vec![input.call(Ident::parse_any)?];
        while input.peek(Token![.]) {
            input.parse::<Token![.]>()?;
            path.push(input.call(Ident::parse_any)?);
        }
        let mut descending = false;
        if !input.is_empty() && !input.peek(Token![,]) {
            let order: Ident = input.parse()?;
            descending = order == "desc";
            if !descending && order != "asc" {
                return Err(Error::new(order.span(), "expected `asc`, `desc`, `,` or `)`"));
            }
        }
        Ok(Part { path, descending })
    }
}

fn default(expression: Expr) -> Result<Default> {
    match expression {
        Expr::Path(path) => Ok(Default::Path(Box::new(path))),
        literal => self::literal(&literal).map(Default::Literal),
    }
}

/// A Rust literal in DDL.
fn literal(expression: &Expr) -> Result<String> {
    let wrong = || Error::new(expression.span(), "expected a literal or a path");
    match expression {
        Expr::Lit(ExprLit { lit, .. }) => match lit {
            Lit::Int(number) => Ok(number.base10_digits().to_owned()),
            Lit::Float(number) => Ok(number.base10_digits().to_owned()),
            Lit::Bool(value) => Ok(value.value.to_string()),
            Lit::Str(text) => Ok(quoted(&text.value())),
            Lit::ByteStr(bytes) => {
                String::from_utf8(bytes.value()).map(|text| quoted(&text)).map_err(|_| wrong())
            }
            _ => Err(wrong()),
        },
        Expr::Unary(unary) if matches!(unary.op, UnOp::Neg(_)) => {
            Ok(format!("-{}", literal(&unary.expr)?))
        }
        _ => Err(wrong()),
    }
}

/// Text as DDL quotes it.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
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
