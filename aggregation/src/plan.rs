//! The private plan: what one query will read, how it is bounded, and what it may release.
//!
//! A [`PrivatePlan`] has private fields and one constructor, [`PrivatePlan::analyse`](crate::analyse), so
//! whoever holds one holds a query that was understood. Node and coordinator each make their own from the same SQL
//! text, schema and permit, and compare digests.

use datafusion_expr::{Expr, LogicalPlan};
use num_bigint::BigUint;
use sekisho_protocol::{
    digest::Digest,
    permit::{Preset, Statistic},
    schema::Kind,
    units::MicroRho,
};

use crate::{
    domain::{Image, KeyValue},
    noise::Variance,
};

/// The weight of a row that counts in full, in lattice units, where rows may have to be weighted down.
///
/// A patient with c > k rows counts each with floor(k·2^32 / c): at c = 10^7 and k = 1 the floor loses under 0.3 %.
pub const WEIGHT_ONE: i128 = 1 << 32;

/// The most patients of one hospital: with the bounds it keeps every sum inside i128.
pub const MAX_PATIENTS: u64 = 1_000_000_000;

/// One group key.
#[derive(Clone, Debug)]
pub struct Key {
    /// The name that the SQL gives it.
    pub name: String,
    /// Over the base table's columns.
    pub(crate) expr: Expr,
    /// Its public values.
    pub image: Image,
}

/// One argument of a sum, or of a count of values.
#[derive(Clone, Debug)]
pub struct Argument {
    pub(crate) expr: Expr,
    /// Digits after the point.
    pub scale: u32,
    /// The range to which values are clamped, in units of 10^-scale; none where only presence is counted.
    pub(crate) range: Option<(i128, i128)>,
}

/// One quantity that is summed per cell and released with noise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Measure {
    /// The weights of all rows.
    Rows,
    /// The weights of the rows where an argument is not NULL.
    Present {
        /// Which argument.
        argument: usize,
    },
    /// The weighted sum of an argument, clamped, minus `centre` for each row where it is not NULL.
    Sum {
        /// Which argument.
        argument: usize,
        /// What is taken off each value, in units of 10^-scale.
        centre: i128,
    },
    /// The number of different patients.
    Patients {
        /// Only those with a row where this argument is not NULL.
        present: Option<usize>,
    },
}

/// One column of the answer, over the released measures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// A measure that is a count.
    Count {
        /// Which measure.
        measure: usize,
    },
    /// A measure that is a sum.
    Sum {
        /// Which measure.
        measure: usize,
    },
    /// `centre + sum / count`.
    Avg {
        /// The centred sum.
        sum: usize,
        /// The count of values.
        count: usize,
    },
}

/// A query that was understood, bounded and priced.
#[derive(Clone)]
pub struct PrivatePlan {
    pub(crate) rows: LogicalPlan,
    pub(crate) ordered: bool,
    pub(crate) tables: Vec<String>,
    pub(crate) columns: Vec<(String, String)>,
    pub(crate) patient_kind: Kind,
    pub(crate) statistics: Vec<Statistic>,
    pub(crate) keys: Vec<Key>,
    pub(crate) arguments: Vec<Argument>,
    pub(crate) measures: Vec<Measure>,
    pub(crate) outputs: Vec<Output>,
    pub(crate) rows_per_patient: u64,
    pub(crate) groups_per_patient: u64,
    pub(crate) one_row: bool,
    pub(crate) preset: Preset,
    pub(crate) guard: usize,
    pub(crate) micro_rho: MicroRho,
    pub(crate) rho_each: MicroRho,
    pub(crate) as_written: LogicalPlan,
    pub(crate) digest: Digest,
}

impl PrivatePlan {
    /// The tables that are read, sorted.
    pub fn tables(&self) -> &[String] {
        &self.tables
    }

    /// The type of the patient column.
    pub fn patient_kind(&self) -> Kind {
        self.patient_kind
    }

    /// The columns that the query depends on as (table, column), sorted, without patient columns.
    pub fn columns(&self) -> &[(String, String)] {
        &self.columns
    }

    /// The statistics that the query asks for, each once.
    pub fn statistics(&self) -> &[Statistic] {
        &self.statistics
    }

    /// The rows to be folded: columns `c0` the patient, then the group keys, then the arguments. Its scans name tables of the
    /// schema; a node puts its own tables in their place.
    pub fn rows(&self) -> &LogicalPlan {
        &self.rows
    }

    /// The rows are one table's in the order of its snapshot, filtered and projected; else they need to be sorted by `c0`.
    pub fn ordered(&self) -> bool {
        self.ordered
    }

    /// The group keys.
    pub fn keys(&self) -> &[Key] {
        &self.keys
    }

    /// What is summed and released.
    pub fn measures(&self) -> &[Measure] {
        &self.measures
    }

    /// The columns of the answer that come from measures, in the order of the SQL's aggregates.
    pub fn outputs(&self) -> &[Output] {
        &self.outputs
    }

    /// How many cells every release of this query has.
    pub fn cells(&self) -> usize {
        self.keys.iter().map(|k| k.image.cells()).product()
    }

    /// The disclosure preset of the permit.
    pub fn preset(&self) -> Preset {
        self.preset
    }

    /// The measure by which the disclosure preset judges a cell: how many patients it has.
    pub fn guard(&self) -> usize {
        self.guard
    }

    /// What each hospital charges.
    pub fn micro_rho(&self) -> MicroRho {
        self.micro_rho
    }

    /// What each measure gets of it.
    pub fn rho_each(&self) -> MicroRho {
        self.rho_each
    }

    /// The digest of the plan's canonical text: equal plans release the same quantities.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The logical plan of the SQL as written, for what follows the release.
    pub fn as_written(&self) -> &LogicalPlan {
        &self.as_written
    }

    /// How many lattice units one row of full weight counts.
    pub fn weight_one(&self) -> i128 {
        if self.one_row { 1 } else { WEIGHT_ONE }
    }

    /// How many lattice units one patient counts in `count(DISTINCT patient)`.
    pub fn patient_one(&self) -> i128 {
        if self.groups_per_patient as usize >= self.cells() || self.one_row { 1 } else { WEIGHT_ONE }
    }

    /// How many lattice units a measure's unit (one row, one patient, or a value of 1) is.
    pub fn unit(&self, measure: &Measure) -> i128 {
        match measure {
            Measure::Rows | Measure::Present { .. } => self.weight_one(),
            Measure::Sum { argument, .. } => self.weight_one() * 10_i128.pow(self.arguments[*argument].scale),
            Measure::Patients { .. } => self.patient_one(),
        }
    }

    /// The square of the most that one patient, with all their rows, moves a measure's vector of cells in the
    /// Euclidean norm, in lattice units squared.
    pub fn squared_sensitivity(&self, measure: &Measure) -> BigUint {
        let rows = BigUint::from(self.rows_per_patient) * BigUint::from(self.weight_one().unsigned_abs());
        match measure {
            // A patient's weights sum to at most k: the norm is largest when all fall into one cell.
            Measure::Rows | Measure::Present { .. } => &rows * &rows,
            Measure::Sum { argument, centre } => {
                let reach = self.reach(*argument, *centre);
                let most = rows * BigUint::from(reach);
                &most * &most
            }
            // g <= G cells of one unit each; or G²/g < G when spread over more.
            Measure::Patients { .. } => {
                let groups = self.groups_per_patient.min(self.cells() as u64);
                let groups = if self.one_row { 1 } else { groups };
                BigUint::from(groups) * BigUint::from(self.patient_one().unsigned_abs()).pow(2)
            }
        }
    }

    /// The largest distance of a clamped value from `centre`.
    pub(crate) fn reach(&self, argument: usize, centre: i128) -> u128 {
        let (lo, hi) = self.arguments[argument].range.unwrap_or((0, 0));
        (lo - centre).unsigned_abs().max((hi - centre).unsigned_abs())
    }

    /// The variance of the noise of a measure, in lattice units squared; `None` if its sensitivity is zero, which no
    /// admitted measure has.
    pub fn variance(&self, measure: &Measure) -> Option<Variance> {
        Variance::for_squared_sensitivity(&self.squared_sensitivity(measure), self.rho_each).ok()
    }

    /// The range of values of a sum's argument in natural units.
    #[expect(clippy::cast_precision_loss, reason = "for intervals, which are real numbers")]
    pub(crate) fn natural_range(&self, measure: usize) -> (f64, f64) {
        let Measure::Sum { argument, .. } = self.measures[measure] else { return (f64::NEG_INFINITY, f64::INFINITY) };
        let argument = &self.arguments[argument];
        let (lo, hi) = argument.range.unwrap_or((0, 0));
        let ten = 10_f64.powi(argument.scale.cast_signed());
        (lo as f64 / ten, hi as f64 / ten)
    }

    /// The keys of a cell: for each group key a value, NULL, or "outside".
    pub fn cell(&self, mut ordinal: usize) -> Vec<CellKey> {
        let mut keys = Vec::with_capacity(self.keys.len());
        for key in self.keys.iter().rev() {
            let place = ordinal % key.image.cells();
            ordinal /= key.image.cells();
            keys.push(match key.image.values.get(place) {
                Some(value) => CellKey::Value(value.clone()),
                None if key.image.null && place == key.image.values.len() => CellKey::Null,
                None => CellKey::Outside,
            });
        }
        keys.reverse();
        keys
    }
}

/// One key of a cell.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum CellKey {
    /// A value of the public domain.
    Value(KeyValue),
    /// NULL.
    Null,
    /// A value outside the public domain.
    Outside,
}
