//! Columns of a batch as the fold reads them: places in the images of group keys, names of private keys, clamped values.

use std::collections::HashMap;

use arrow::{
    array::{AnyDictionaryArray, Array, ArrayRef, AsArray},
    compute::cast,
    datatypes::{DataType, Date32Type, Decimal128Type, Int64Type},
};

use super::FoldError;
use crate::domain::{Image, KeyKind, KeyValue};

/// The most bytes of a name.
const MAX_NAME: usize = 200;

/// Finds a row's place in the image of one group key.
pub(super) struct Lookup {
    kind: KeyKind,
    cells: u32,
    text: HashMap<String, u32>,
    number: HashMap<i64, u32>,
    dense: Option<(i64, i64)>,
    null: u32,
    outside: u32,
}

impl Lookup {
    pub(super) fn new(image: &Image) -> Self {
        let n = u32::try_from(image.values.len()).unwrap_or(u32::MAX);
        let mut text = HashMap::new();
        let mut number = HashMap::new();
        for (value, place) in image.values.iter().zip(0..) {
            match value {
                KeyValue::Text(t) => text.insert(t.clone(), place),
                KeyValue::Int(i) => number.insert(*i, place),
                KeyValue::Date(d) => number.insert((*d).into(), place),
                KeyValue::Bool(b) => number.insert((*b).into(), place),
            };
        }
        let ends = number.keys().min().zip(number.keys().max()).map(|(lo, hi)| (*lo, *hi));
        // Whatever has no cell of its own falls into the last: no row can be dropped, and none can stop the fold.
        let last = u32::try_from(image.cells().saturating_sub(1)).unwrap_or(u32::MAX);
        Self {
            kind: image.kind,
            cells: u32::try_from(image.cells()).unwrap_or(u32::MAX),
            dense: ends.filter(|(lo, hi)| hi.wrapping_sub(*lo) == i64::from(n) - 1),
            text,
            number,
            null: if image.null { n } else { last },
            outside: last,
        }
    }

    fn number(&self, value: i64) -> u32 {
        match self.dense {
            Some((lo, hi)) if (lo..=hi).contains(&value) => u32::try_from(value - lo).unwrap_or(self.outside),
            Some(_) => self.outside,
            None => self.number.get(&value).copied().unwrap_or(self.outside),
        }
    }

    /// Turns each ordinal o into o·cells + place.
    pub(super) fn add(&self, column: &ArrayRef, ordinals: &mut [u32]) -> Result<(), FoldError> {
        if let Some(dictionary) = column.as_any_dictionary_opt() {
            return self.add_coded(dictionary, ordinals);
        }
        let column = if column.data_type() == &self.kind.arrow() {
            ArrayRef::clone(column)
        } else {
            cast(column, &self.kind.arrow()).map_err(|_| FoldError::Shape)?
        };
        let mut each = |place: &dyn Fn(usize) -> u32| {
            for (row, ordinal) in ordinals.iter_mut().enumerate() {
                let place = if column.is_null(row) { self.null } else { place(row) };
                *ordinal = *ordinal * self.cells + place;
            }
        };
        match self.kind {
            KeyKind::Text => {
                let values = column.as_string_opt::<i32>().ok_or(FoldError::Shape)?;
                each(&|row| self.text.get(values.value(row)).copied().unwrap_or(self.outside));
            }
            KeyKind::Int => {
                let values = column.as_primitive_opt::<Int64Type>().ok_or(FoldError::Shape)?;
                each(&|row| self.number(values.value(row)));
            }
            KeyKind::Date => {
                let values = column.as_primitive_opt::<Date32Type>().ok_or(FoldError::Shape)?;
                each(&|row| self.number(values.value(row).into()));
            }
            KeyKind::Bool => {
                let values = column.as_boolean_opt().ok_or(FoldError::Shape)?;
                each(&|row| self.number(values.value(row).into()));
            }
        }
        Ok(())
    }
}

impl Lookup {
    /// The same for a dictionary-coded column: each of its values is looked up once.
    fn add_coded(&self, column: &dyn AnyDictionaryArray, ordinals: &mut [u32]) -> Result<(), FoldError> {
        let mut places = vec![0; column.values().len()];
        // From ordinal 0 each value's place comes out by itself.
        self.add(column.values(), &mut places)?;
        for ((row, ordinal), code) in ordinals.iter_mut().enumerate().zip(column.normalized_keys()) {
            let place = if column.is_null(row) { self.null } else { places.get(code).copied().unwrap_or(self.outside) };
            *ordinal = *ordinal * self.cells + place;
        }
        Ok(())
    }
}

/// The names that a private key has had so far.
#[derive(Default)]
pub(super) struct Names {
    text: HashMap<String, u32>,
    number: HashMap<i64, u32>,
    null: Option<u32>,
    /// Every name, in the order in which it was met.
    pub(super) list: Vec<Option<KeyValue>>,
}

impl Names {
    /// The name of each row of `column`, as its place in the list.
    pub(super) fn of(&mut self, column: &ArrayRef, kind: KeyKind) -> Result<Vec<u32>, FoldError> {
        let column = cast(column, &kind.arrow()).map_err(|_| FoldError::Shape)?;
        let mut places = Vec::with_capacity(column.len());
        for row in 0..column.len() {
            let place = if column.is_null(row) {
                let next = self.list.len();
                *self.null.get_or_insert_with(|| {
                    self.list.push(None);
                    u32::try_from(next).unwrap_or(u32::MAX)
                })
            } else {
                match kind {
                    KeyKind::Text => {
                        let values = column.as_string_opt::<i32>().ok_or(FoldError::Shape)?;
                        self.of_text(shortened(values.value(row)))
                    }
                    KeyKind::Int => {
                        let values = column.as_primitive_opt::<Int64Type>().ok_or(FoldError::Shape)?;
                        let value = values.value(row);
                        self.of_number(value, KeyValue::Int(value))
                    }
                    KeyKind::Date => {
                        let values = column.as_primitive_opt::<Date32Type>().ok_or(FoldError::Shape)?;
                        let value = values.value(row);
                        self.of_number(value.into(), KeyValue::Date(value))
                    }
                    KeyKind::Bool => return Err(FoldError::Shape),
                }
            };
            places.push(place);
        }
        Ok(places)
    }

    fn of_text(&mut self, text: &str) -> u32 {
        if let Some(place) = self.text.get(text) {
            return *place;
        }
        let place = u32::try_from(self.list.len()).unwrap_or(u32::MAX);
        self.text.insert(text.to_string(), place);
        self.list.push(Some(KeyValue::Text(text.to_string())));
        place
    }

    fn of_number(&mut self, number: i64, value: KeyValue) -> u32 {
        *self.number.entry(number).or_insert_with(|| {
            self.list.push(Some(value));
            u32::try_from(self.list.len() - 1).unwrap_or(u32::MAX)
        })
    }
}

/// The first bytes of a name: a release holds no more of it.
fn shortened(text: &str) -> &str {
    let end = (0..=MAX_NAME.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or(0)]
}

/// The values of one argument, clamped.
pub(super) enum Values {
    Present(ArrayRef),
    Int(arrow::array::Int64Array, i128, i128),
    Decimal(arrow::array::Decimal128Array, i128, i128),
}

impl Values {
    #[expect(clippy::wildcard_enum_match_arm, reason = "a foreign enum: other types are not summed")]
    pub(super) fn new(column: &ArrayRef, range: Option<(i128, i128)>) -> Result<Self, FoldError> {
        let Some((lo, hi)) = range else { return Ok(Self::Present(ArrayRef::clone(column))) };
        match column.data_type() {
            DataType::Decimal128(..) => {
                Ok(Self::Decimal(column.as_primitive_opt::<Decimal128Type>().ok_or(FoldError::Shape)?.clone(), lo, hi))
            }
            DataType::Int64 | DataType::Int32 | DataType::UInt64 => {
                let column = cast(column, &DataType::Int64).map_err(|_| FoldError::Shape)?;
                Ok(Self::Int(column.as_primitive_opt::<Int64Type>().ok_or(FoldError::Shape)?.clone(), lo, hi))
            }
            _ => Err(FoldError::Shape),
        }
    }

    pub(super) fn get(&self, row: usize) -> Option<i128> {
        match self {
            Self::Present(column) => column.is_valid(row).then_some(0),
            Self::Int(column, lo, hi) => column.is_valid(row).then(|| i128::from(column.value(row)).clamp(*lo, *hi)),
            Self::Decimal(column, lo, hi) => column.is_valid(row).then(|| column.value(row).clamp(*lo, *hi)),
        }
    }
}
