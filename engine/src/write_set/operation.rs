//! Operations on integers that read nothing: what they make of a field is found out where they are
//! applied, so two transactions that add to the same record both commit.
//!
//! An operation never fails there. Integers saturate; and that the record is there and its field
//! not null is what certification guarantees: whoever deletes the record or sets the field to null
//! after the snapshot is a writer, and adding conflicts with those.

use std::collections::BTreeMap;

use quorate_schema::{ClassDef, Dictionary, EncodedRecord, FieldId, RecordRef, Type, Value};

/// What is done to a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operator {
    /// The operand is added.
    Add,
    /// The lesser of both stays.
    Min,
    /// The greater of both stays.
    Max,
}

/// One operation on one field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Operation {
    pub(crate) field: FieldId,
    pub(crate) operator: Operator,
    pub(crate) operand: i128,
}

/// Operands beyond this change nothing: every field saturates before.
const OPERAND_MAX: i128 = 1 << 64;

impl Operation {
    /// An operation; the operand is cut to what can make a difference.
    pub(crate) fn new(field: FieldId, operator: Operator, operand: i128) -> Operation {
        Operation { field, operator, operand: operand.clamp(-OPERAND_MAX, OPERAND_MAX) }
    }

    /// The operation that does what this and then `next` do, if there is one for sure.
    pub(crate) fn then(&self, next: &Operation) -> Option<Operation> {
        if self.field != next.field || self.operator != next.operator {
            return None;
        }
        let (a, b) = (self.operand, next.operand);
        let operand = match self.operator {
            // With different signs the first may saturate before the second takes it back.
            Operator::Add if a.signum() * b.signum() < 0 => return None,
            Operator::Add => a + b,
            Operator::Min => a.min(b),
            Operator::Max => a.max(b),
        };
        Some(Operation::new(self.field, self.operator, operand))
    }

    fn applied_to(&self, before: i128, range: (i128, i128)) -> i128 {
        let after = match self.operator {
            Operator::Add => before + self.operand,
            Operator::Min => before.min(self.operand),
            Operator::Max => before.max(self.operand),
        };
        after.clamp(range.0, range.1)
    }
}

/// Why there are no operations on a field; None if there are.
pub(crate) fn refusal(class: &ClassDef, field: FieldId) -> Option<&'static str> {
    if range(&class.fields[field.0 as usize].ty).is_none() {
        return Some("is no integer");
    }
    let mut parts = class.indexes.iter().flat_map(|index| &index.parts);
    parts.any(|part| part.path.first() == Some(&field)).then_some("is part of an index")
}

/// The record in `image` after `operations` on fields without [`refusal`]; None if one is null.
pub(crate) fn operated(
    dictionary: &Dictionary,
    class: &ClassDef,
    image: &[u8],
    operations: &[Operation],
) -> Option<EncodedRecord> {
    let record = RecordRef::new(dictionary, class, image);
    let mut numbers: BTreeMap<FieldId, i128> = BTreeMap::new();
    for operation in operations {
        let field = operation.field;
        let ty = &class.fields[field.0 as usize].ty;
        let before = match (numbers.get(&field), ty) {
            (Some(before), _) => *before,
            (None, Type::Signed(_)) => record.signed(field)?.into(),
            (None, _) => record.unsigned(field)?.into(),
        };
        let range = range(ty).expect("the field has no refusal");
        numbers.insert(field, operation.applied_to(before, range));
    }
    let in_range = "the number was clamped to the range of the field";
    let value = |(field, number): (FieldId, i128)| match class.fields[field.0 as usize].ty {
        Type::Signed(_) => (field, Value::Signed(number.try_into().expect(in_range))),
        _ => (field, Value::Unsigned(number.try_into().expect(in_range))),
    };
    let changes: Vec<(FieldId, Value)> = numbers.into_iter().map(value).collect();
    Some(dictionary.layout(class.id).update(dictionary, image, &changes).expect(in_range))
}

/// The least and the greatest number of an integer type.
fn range(ty: &Type) -> Option<(i128, i128)> {
    match ty {
        Type::Signed(bytes) => {
            let half = 1_i128 << (8 * bytes - 1);
            Some((-half, half - 1))
        }
        Type::Unsigned(bytes) => Some((0, (1_i128 << (8 * bytes)) - 1)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_operation_does_what_two_did() {
        let interesting =
            [-300, -256, -129, -128, -127, -1, 0, 1, 5, 127, 128, 255, 256, i128::MAX];
        let ranges = [(-128, 127), (0, 255)];
        let mut merged = 0;
        for operator in [Operator::Add, Operator::Min, Operator::Max] {
            for (a, b) in interesting.iter().flat_map(|a| interesting.map(|b| (*a, b))) {
                let first = Operation::new(FieldId(1), operator, a);
                let second = Operation::new(FieldId(1), operator, b);
                let Some(both) = first.then(&second) else { continue };
                merged += 1;
                for (low, high) in ranges {
                    for start in low..=high {
                        let between = first.applied_to(start, (low, high));
                        let expected = second.applied_to(between, (low, high));
                        let found = both.applied_to(start, (low, high));
                        assert_eq!(found, expected, "{start}: {first:?} {second:?}");
                    }
                }
            }
        }
        assert!(merged > 400, "only {merged} pairs were merged");
        let other = Operation::new(FieldId(2), Operator::Add, 1);
        assert_eq!(other.then(&Operation::new(FieldId(1), Operator::Add, 1)), None);
    }

    #[test]
    fn ranges_are_those_of_the_types() {
        assert_eq!(range(&Type::Signed(8)), Some((i64::MIN.into(), i64::MAX.into())));
        assert_eq!(range(&Type::Unsigned(8)), Some((0, u64::MAX.into())));
        assert_eq!(range(&Type::Signed(1)), Some((-128, 127)));
        assert_eq!(range(&Type::Date), None);
    }
}
