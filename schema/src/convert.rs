//! Plain Rust values as [`Value`]s: what a program writes instead of naming the variant.
//!
//! Conversions that could fail or surprise (a number of days, an enum by its number) are not here:
//! those variants are named.

use crate::{Reference, Value};

macro_rules! convert {
    ($($variant:ident from $($rust:ty),+;)+) => {$($(
        impl From<$rust> for Value {
            fn from(value: $rust) -> Self {
                Value::$variant(value.into())
            }
        }
    )+)+};
}

convert! {
    Boolean from bool;
    Signed from i8, i16, i32, i64;
    Unsigned from u8, u16, u32, u64;
    Float from f32;
    Double from f64;
    Text from &str, String;
    Bytes from &[u8], Vec<u8>;
    Ref from Reference;
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Value::Null, T::into)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_becomes_its_own_variant() {
        assert_eq!(Value::from(true), Value::Boolean(true));
        assert_eq!(Value::from(-3_i8), Value::Signed(-3));
        assert_eq!(Value::from(3_u32), Value::Unsigned(3));
        assert_eq!(Value::from(0.5_f32), Value::Float(0.5));
        assert_eq!(Value::from("a"), Value::Text("a".to_owned()));
        assert_eq!(Value::from(&[1_u8][..]), Value::Bytes(vec![1]));
        assert_eq!(Value::from(None::<f64>), Value::Null);
        assert_eq!(Value::from(Some(0.5)), Value::Double(0.5));
    }
}
