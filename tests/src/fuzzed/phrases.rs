//! Expressions and conditions of `words.rs`.

use arbitrary::Result;

use super::words::{
    Holds::{self, Bool, Date, Decimal, Int, Text},
    Source, Writer,
};

const WORDS: [&str; 6] = ["'female'", "'inpatient'", "'4548-4'", "'E11'", "''", "NULL"];
const NUMBERS: [&str; 6] = ["1", "0", "10", "-3", "9223372036854775807", "NULL"];
const DAYS: [&str; 3] = ["DATE '2024-02-29'", "DATE '2020-01-01'", "NULL"];

impl Writer<'_, '_> {
    /// A column of `source` that holds this, or a literal.
    pub fn leaf(&mut self, source: &Source, holds: Holds) -> Result<String> {
        let fitting: Vec<&str> = source.columns.iter().filter(|(_, h)| *h == holds).map(|(c, _)| c.as_str()).collect();
        if !fitting.is_empty() && !self.once_in(4)? {
            return Ok(self.of(&fitting)?.into());
        }
        Ok(match holds {
            Int => self.of(&NUMBERS)?,
            Decimal => self.of(&["1.5", "0.0", "99999999999999999.9"])?,
            Text => self.of(&WORDS)?,
            Date => self.of(&DAYS)?,
            Bool => self.of(&["true", "false", "NULL"])?,
        }
        .into())
    }

    pub fn expression(&mut self, source: &Source, holds: Holds, depth: usize) -> Result<String> {
        if depth == 0 {
            return self.leaf(source, holds);
        }
        let below = depth - 1;
        // Something is computed of the patient: never admitted.
        if let (Some(patient), true) = (&source.patient, self.once_in(32)?) {
            return Ok(patient.clone());
        }
        let a = self.leaf(source, holds)?;
        let choice = self.bytes.int_in_range(0..=9)?;
        if choice == 8 {
            let condition = self.condition(source, below)?;
            return Ok(format!("CASE WHEN {condition} THEN {a} ELSE {} END", self.expression(source, holds, below)?));
        }
        if choice == 9 {
            return Ok(format!(
                "{}({a}, {})",
                self.of(&["coalesce", "least", "nullif"])?,
                self.expression(source, holds, below)?
            ));
        }
        Ok(match (holds, choice) {
            (Int | Decimal, 4) => {
                format!("{a} {} {}", self.of(&["+", "-", "*", "/", "%"])?, self.expression(source, holds, below)?)
            }
            (Int | Decimal, 5) => format!("{}({a})", self.of(&["abs", "sign", "floor", "round", "-"])?),
            (Int, 6) => format!("date_part('year', {})", self.leaf(source, Date)?),
            (Int, 7) => format!("character_length({})", self.leaf(source, Text)?),
            (Decimal, 6 | 7) => format!("CAST({} AS decimal(12, 2))", self.leaf(source, Int)?),
            (Text, 4) => format!("{a} || {}", self.leaf(source, Text)?),
            (Text, 5) => format!("substr({a}, 1, 3)"),
            (Text, 6) => format!("{}({a})", self.of(&["lower", "upper", "trim"])?),
            (Text, 7) => format!("CAST({} AS text)", self.leaf(source, Int)?),
            (Date, 4) => {
                format!("{a} + INTERVAL '{}' {}", self.of(&["1", "-40", "999999"])?, self.of(&["DAY", "MONTH"])?)
            }
            (Date, 5 | 6) => format!("CAST(date_trunc('month', {a}) AS date)"),
            (Bool, 4..=7) => self.condition(source, below)?,
            _ => a,
        })
    }

    pub fn condition(&mut self, source: &Source, depth: usize) -> Result<String> {
        let holds = *self.bytes.choose(&[Int, Text, Date, Decimal, Bool])?;
        let a = self.expression(source, holds, depth.min(1))?;
        if depth == 0 {
            return Ok(format!("{a} IS NOT NULL"));
        }
        Ok(match self.bytes.int_in_range(0..=9)? {
            1 => format!("{a} IS NULL"),
            2 => format!("{a} IN ({}, {})", self.literal(holds)?, self.literal(holds)?),
            3 => format!("{a} BETWEEN {} AND {}", self.leaf(source, holds)?, self.leaf(source, holds)?),
            4 => format!("({} AND {})", self.condition(source, depth - 1)?, self.condition(source, depth - 1)?),
            5 => format!("({} OR {})", self.condition(source, depth - 1)?, self.condition(source, depth - 1)?),
            6 => format!("NOT ({})", self.condition(source, depth - 1)?),
            7 => format!("{} LIKE 'E1%'", self.leaf(source, Text)?),
            8 => source.patient.as_ref().map_or_else(|| "true".into(), |p| format!("{p} IS NOT NULL")),
            9 => source.patient.as_ref().map_or_else(|| "true".into(), |p| format!("{p} = 7")),
            _ => format!("{a} {} {}", self.of(&["=", "<>", "<", ">="])?, self.leaf(source, holds)?),
        })
    }

    pub fn literal(&mut self, holds: Holds) -> Result<String> {
        self.leaf(&Source { sql: String::new(), columns: Vec::new(), patient: None }, holds)
    }
}
