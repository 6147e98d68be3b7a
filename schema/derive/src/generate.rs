//! The implementations that the derives write.

use proc_macro2::TokenStream;
use quote::quote;
use syn::ext::IdentExt;
use syn::{Data, DeriveInput, Error, Fields, Ident, Result, Type};

use crate::attributes::{Default, FieldAttributes, Index, TypeAttributes};

/// One field of a struct.
struct Field<'i> {
    rust_name: &'i Ident,
    ty: &'i Type,
    name: String,
    kind: TokenStream,
    default: TokenStream,
}

pub(crate) fn class(input: &DeriveInput) -> Result<TokenStream> {
    let attributes = TypeAttributes::read(&input.attrs, true)?;
    let TypeAttributes { schema, local, list, .. } = &attributes;
    let fields = fields(input, schema)?;
    let ident = &input.ident;
    let name = name_of(&attributes, ident);
    let names: Vec<&String> = fields.iter().map(|field| &field.name).collect();
    let declared = declared(&fields);
    let values = values(&fields, schema);
    let mut members = Vec::new();
    for index in &attributes.indexes {
        members.push(index_text(index, &fields)?);
    }
    if *list {
        members.push("list;".to_owned());
    }
    let rust_names = fields.iter().map(|field| field.rust_name);
    let reads = fields.iter().enumerate().map(|(position, field)| {
        let (Field { ty, name, kind, .. }, position) = (field, position as u32);
        quote!(#schema::typed::read_field::<#ty, #kind>(record, #position, #name)?)
    });
    Ok(quote! {
        impl #schema::typed::Class for #ident {
            const NAME: &'static str = #name;
            const FIELDS: &'static [&'static str] = &[#(#names),*];

            fn definition(builder: &mut #schema::typed::DictionaryBuilder) {
                builder.add_class::<Self>(#local, |builder| {
                    ::std::vec![#(#declared,)* #(::std::string::String::from(#members)),*]
                });
            }

            fn to_values(&self) -> ::std::vec::Vec<#schema::Value> {
                ::std::vec![#(#values),*]
            }

            fn from_record(
                record: &#schema::RecordRef<'_>,
            ) -> ::std::result::Result<Self, #schema::ValueError> {
                ::std::result::Result::Ok(Self { #(#rust_names: #reads),* })
            }
        }
    })
}

pub(crate) fn structure(input: &DeriveInput) -> Result<TokenStream> {
    let attributes = TypeAttributes::read(&input.attrs, false)?;
    let schema = &attributes.schema;
    let fields = fields(input, schema)?;
    let ident = &input.ident;
    let name = name_of(&attributes, ident);
    let declared = declared(&fields);
    let values = values(&fields, schema);
    let rust_names = fields.iter().map(|field| field.rust_name);
    let count = fields.len();
    let reads = fields.iter().map(
        |Field { ty, kind, .. }| quote!(#schema::typed::next_field::<#ty, #kind>(&mut values)?),
    );
    let markers = markers(ident, schema);
    Ok(quote! {
        impl #schema::typed::Field for #ident {
            fn shape(builder: &mut #schema::typed::DictionaryBuilder) -> #schema::typed::Shape {
                builder.add_struct::<Self>(#name, |builder| ::std::vec![#(#declared),*]);
                #schema::typed::Shape::of(#name)
            }

            fn to_value(&self) -> #schema::Value {
                #schema::Value::Struct(::std::vec![#(#values),*])
            }

            fn from_value(
                value: #schema::Value,
            ) -> ::std::result::Result<Self, #schema::Value> {
                match value {
                    #schema::Value::Struct(values) if values.len() == #count => {
                        let mut values = values.into_iter();
                        ::std::result::Result::Ok(Self { #(#rust_names: #reads),* })
                    }
                    other => ::std::result::Result::Err(other),
                }
            }
        }
        #markers
    })
}

pub(crate) fn enumeration(input: &DeriveInput) -> Result<TokenStream> {
    let attributes = TypeAttributes::read(&input.attrs, false)?;
    let schema = &attributes.schema;
    let ident = &input.ident;
    let Data::Enum(data) = &input.data else {
        return Err(Error::new(ident.span(), "`Enum` is derived for enums"));
    };
    let mut variants = Vec::new();
    let mut names = Vec::new();
    for variant in &data.variants {
        if !matches!(variant.fields, Fields::Unit) {
            return Err(Error::new(variant.ident.span(), "members of an enum hold no data"));
        }
        let read = FieldAttributes::read(&variant.attrs, false)?;
        names.push(read.name.map_or(variant.ident.unraw().to_string(), |name| name.value()));
        variants.push(&variant.ident);
    }
    let name = name_of(&attributes, ident);
    let markers = markers(ident, schema);
    Ok(quote! {
        impl #schema::typed::Field for #ident {
            fn shape(builder: &mut #schema::typed::DictionaryBuilder) -> #schema::typed::Shape {
                builder.add_enum::<Self>(#name, &[#((#names, Self::#variants as i32)),*]);
                #schema::typed::Shape::of(#name)
            }

            fn to_value(&self) -> #schema::Value {
                #schema::Value::Enum(match self {
                    #(Self::#variants => Self::#variants as i32),*
                })
            }

            fn from_value(
                value: #schema::Value,
            ) -> ::std::result::Result<Self, #schema::Value> {
                match value {
                    #(
                        #schema::Value::Enum(number) if number == Self::#variants as i32 => {
                            ::std::result::Result::Ok(Self::#variants)
                        }
                    )*
                    other => ::std::result::Result::Err(other),
                }
            }
        }
        #markers
    })
}

/// The fields of a struct; only structs with named fields have any, and none is generic.
fn fields<'i>(input: &'i DeriveInput, schema: &TokenStream) -> Result<Vec<Field<'i>>> {
    if !input.generics.params.is_empty() {
        let message = "a class or struct of a dictionary has no parameters";
        return Err(Error::new(input.ident.span(), message));
    }
    let Data::Struct(data) = &input.data else {
        return Err(Error::new(input.ident.span(), "expected a struct with named fields"));
    };
    let Fields::Named(named) = &data.fields else {
        return Err(Error::new(input.ident.span(), "expected a struct with named fields"));
    };
    let mut fields = Vec::with_capacity(named.named.len());
    for field in &named.named {
        let read = FieldAttributes::read(&field.attrs, true)?;
        let rust_name = field.ident.as_ref().expect("named fields have names");
        let kind = read.kind.unwrap_or_else(|| quote!(Natural));
        let default = match read.default {
            Some(Default::Literal(text)) => {
                quote!(::std::option::Option::Some(::std::string::String::from(#text)))
            }
            Some(Default::Path(path)) => {
                quote!(::std::option::Option::Some(#schema::typed::literal(&#path)))
            }
            None => quote!(::std::option::Option::None),
        };
        fields.push(Field {
            rust_name,
            ty: &field.ty,
            name: read.name.map_or(rust_name.unraw().to_string(), |name| name.value()),
            kind: quote!(#schema::typed::kind::#kind),
            default,
        });
    }
    Ok(fields)
}

fn name_of(attributes: &TypeAttributes, ident: &Ident) -> String {
    attributes.name.as_ref().map_or(ident.unraw().to_string(), |name| name.value())
}

/// Expressions that give each field in DDL.
fn declared<'f>(fields: &'f [Field<'_>]) -> Vec<TokenStream> {
    let declare = |field: &'f Field<'_>| {
        let Field { ty, name, kind, default, .. } = field;
        quote!(builder.field::<#ty, #kind>(#name, #default))
    };
    fields.iter().map(declare).collect()
}

/// Expressions that give the value of each field.
fn values(fields: &[Field<'_>], schema: &TokenStream) -> Vec<TokenStream> {
    let value = |field: &Field<'_>| {
        let Field { rust_name, ty, kind, .. } = field;
        quote!(<#ty as #schema::typed::Field<#kind>>::to_value(&self.#rust_name))
    };
    fields.iter().map(value).collect()
}

fn markers(ident: &Ident, schema: &TokenStream) -> TokenStream {
    quote! {
        impl #schema::typed::NotNull for #ident {}
        impl #schema::typed::Item for #ident {}
    }
}

/// An index in DDL. That its fields exist is checked here, where the error has a place in the
/// program; everything else when the dictionary is built.
fn index_text(index: &Index, fields: &[Field<'_>]) -> Result<String> {
    let mut parts = Vec::with_capacity(index.parts.len());
    let mut default_name = String::from("by");
    for part in &index.parts {
        let first = part.path[0].unraw().to_string();
        if fields.iter().all(|field| field.name != first) {
            let message = format!("the class has no field `{first}`");
            return Err(Error::new(part.path[0].span(), message));
        }
        let names: Vec<String> = part.path.iter().map(|name| name.unraw().to_string()).collect();
        for name in &names {
            default_name.push('_');
            default_name.push_str(name);
        }
        let order = if part.descending { " desc" } else { "" };
        parts.push(format!("{}{order}", names.join(".")));
    }
    let unique = if index.unique { "unique " } else { "" };
    let name = index.name.as_ref().unwrap_or(&default_name);
    Ok(format!("{unique}{}<{}> {name};", index.kind, parts.join(", ")))
}
