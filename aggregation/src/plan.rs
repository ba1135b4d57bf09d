//! The private plan: what one query will read, how it is bounded, and what it may release.
//!
//! A [`PrivatePlan`] has private fields and one constructor, [`PrivatePlan::analyse`](crate::analyse), so
//! whoever holds one holds a query that was understood. Node and coordinator each make their own from the same SQL
//! text, schema, permit and terms, and compare digests.
//!
//! A plan has one or more *parts*: each is one aggregate across patients. A part's *cells* are the combinations of its
//! public keys; a key that is not public multiplies them by the *names* that a release finds. Every [`Measure`] is a vector of
//! integers over the cells of some of the keys.

use datafusion_expr::{Expr, LogicalPlan};
use num_bigint::BigUint;
use sekisho_protocol::{
    digest::Digest,
    disclosure::Rules,
    permit::{Mechanism, Preset, Statistic},
    schema::Kind,
    units::{AttoDelta, MicroRho},
};

use crate::{
    domain::{Image, KeyValue},
    noise::Noise,
    relation::Step,
    release::MAX_NAMES,
    tree::Tree,
};

/// The weight of a row that counts in full, in lattice units, where rows may have to be weighted down.
///
/// A patient with c > k rows counts each with floor(k·2^32 / c): at c = 10^7 and k = 1 the floor loses under 0.3 %.
pub const WEIGHT_ONE: i128 = 1 << 32;

/// The most patients of one hospital: with the bounds it keeps every sum inside i128.
pub const MAX_PATIENTS: u64 = 1_000_000_000;

/// Some of a part's group keys, a bit each.
pub type Keys = u32;

/// One group key.
#[derive(Clone, Debug)]
pub struct Key {
    /// The name that the SQL gives it.
    pub name: String,
    /// Over the relation's columns.
    pub(crate) expr: Expr,
    /// Its public values; none of a private key.
    pub image: Image,
    /// Its values are not public: which of them are released is decided with noise, and costs delta.
    pub private: bool,
}

impl Key {
    /// How many cells the key makes of one; a private key none more.
    pub fn cells(&self) -> usize {
        if self.private { 1 } else { self.image.cells() }
    }
}

/// One argument of a sum, a count of values or a quantile.
#[derive(Clone, Debug)]
pub struct Argument {
    pub(crate) expr: Expr,
    /// Digits after the point.
    pub scale: u32,
    /// The range to which values are clamped, in units of 10^-scale; none where only presence is counted.
    pub(crate) range: Option<(i128, i128)>,
}

/// What is counted or summed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Quantity {
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
    /// The number of patients whose rows are weighted down.
    Heavy,
    /// The weights of the rows in each node of a tree over an argument's range: a hierarchical histogram.
    Histogram {
        /// Which argument.
        argument: usize,
    },
}

/// What a measure costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Price {
    /// Under Gaussian noise.
    Rho(MicroRho),
    /// Under Laplace noise: pure epsilon in millionths.
    Epsilon(u64),
}

/// One quantity that is summed per cell and released with noise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Measure {
    /// What is summed.
    pub quantity: Quantity,
    /// The group keys over whose cells it is a vector.
    pub over: Keys,
    /// Its share of the query's cost.
    pub price: Price,
}

/// One column of the answer, over the released measures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// A count or a sum: one measure.
    One {
        /// Which measure.
        measure: usize,
    },
    /// A count of patients: a measure for each grouping set.
    Patients {
        /// Which measures.
        measures: Vec<usize>,
    },
    /// `centre + sum / count`.
    Avg {
        /// The centred sum.
        sum: usize,
        /// The count of values.
        count: usize,
    },
    /// Variance, standard deviation, covariance or correlation, of sums over the rows where all arguments are there.
    Moments {
        /// Which of them.
        moment: Moment,
        /// The count of rows.
        count: usize,
        /// The centred sums: of x, and of y where there is one.
        sums: Vec<usize>,
        /// The sums of products of centred values: xx, or xy, or xx yy xy.
        products: Vec<usize>,
    },
    /// A quantile of a histogram.
    Quantile {
        /// Which measure.
        measure: usize,
        /// Which share of the rows lies below, in millionths.
        millionths: u32,
    },
    /// The least or the greatest value of a histogram.
    Extreme {
        /// Which measure.
        measure: usize,
        /// The greatest.
        greatest: bool,
    },
    /// `grouping(…)`: which of these keys a row's grouping set leaves out, as a number with a bit each.
    Grouping {
        /// The keys, the first is the highest bit.
        keys: Vec<usize>,
    },
}

/// A second moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// `var_pop` and `var_samp`.
    Variance {
        /// Divided by n - 1.
        sample: bool,
    },
    /// `stddev_pop` and `stddev_samp`.
    Deviation {
        /// Divided by n - 1.
        sample: bool,
    },
    /// `covar_pop` and `covar_samp`.
    Covariance {
        /// Divided by n - 1.
        sample: bool,
    },
    /// `corr`.
    Correlation,
}

/// One aggregate across patients.
#[derive(Clone)]
pub struct Part {
    pub(crate) rows: LogicalPlan,
    pub(crate) ordered: bool,
    pub(crate) patient_kind: Kind,
    pub(crate) keys: Vec<Key>,
    pub(crate) sets: Vec<Keys>,
    pub(crate) arguments: Vec<Argument>,
    pub(crate) measures: Vec<Measure>,
    pub(crate) outputs: Vec<Output>,
    /// For each grouping set the measure by which the disclosure preset judges a cell.
    pub(crate) guards: Vec<usize>,
    /// Measures that tell how much the bounds bit, with what each counts.
    pub(crate) bites: Vec<(usize, String)>,
    /// The measure by which names are let out, and the delta for it.
    pub(crate) names: Option<(usize, AttoDelta)>,
    pub(crate) rows_per_patient: u64,
    pub(crate) groups_per_patient: u64,
    pub(crate) one_row: bool,
    /// Of an exact plan: every row counts in full, measures have no price, and margins leave with numbers of their own.
    pub(crate) exact: bool,
}

/// A query that was understood, bounded and priced.
#[derive(Clone)]
pub struct PrivatePlan {
    pub(crate) parts: Vec<Part>,
    pub(crate) tables: Vec<String>,
    pub(crate) columns: Vec<(String, String)>,
    pub(crate) statistics: Vec<Statistic>,
    pub(crate) preset: Preset,
    pub(crate) exact: Option<Rules>,
    pub(crate) mechanism: Mechanism,
    pub(crate) micro_rho: MicroRho,
    pub(crate) as_written: LogicalPlan,
    /// Of the aggregates of `as_written` that are not under another part, in the order of a walk from the top: whether it is
    /// one across patients. The others aggregate released cells.
    pub(crate) reducing: Vec<bool>,
    pub(crate) steps: Vec<Step>,
    pub(crate) digest: Digest,
}

impl PrivatePlan {
    /// The aggregates across patients.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// The tables that are read, sorted.
    pub fn tables(&self) -> &[String] {
        &self.tables
    }

    /// The columns that the query depends on as (table, column), sorted, without patient columns.
    pub fn columns(&self) -> &[(String, String)] {
        &self.columns
    }

    /// The statistics that the query asks for, each once.
    pub fn statistics(&self) -> &[Statistic] {
        &self.statistics
    }

    /// How many cells every release of this query has; a private key's names multiply those of its part.
    pub fn cells(&self) -> usize {
        self.parts.iter().map(Part::cells).sum()
    }

    /// The most numbers of a release.
    pub fn most_numbers(&self) -> usize {
        let public = |p: &Part| p.measures.iter().map(|m| p.released(m, 1)).sum::<usize>();
        if self.parts.iter().any(|p| p.names.is_some()) {
            return crate::analyse::MAX_NUMBERS;
        }
        self.parts.iter().map(public).sum()
    }

    /// The type of the patient columns; none when parts differ in it, for which there is no one register.
    pub fn patient_kind(&self) -> Option<Kind> {
        let mut kinds = self.parts.iter().map(|p| p.patient_kind);
        let first = kinds.next()?;
        kinds.all(|kind| kind == first).then_some(first)
    }

    /// The disclosure preset of the permit.
    pub fn preset(&self) -> Preset {
        self.preset
    }

    /// The rules of an exact plan: that of a query which the permit lists as `aggregated`. It has no noise and costs nothing;
    /// [`Release::exact`](crate::release::Release::exact) alone lets its cells out, under these rules or stricter ones.
    pub fn exact(&self) -> Option<&Rules> {
        self.exact.as_ref()
    }

    /// The distribution of the noise.
    pub fn mechanism(&self) -> Mechanism {
        self.mechanism
    }

    /// What each hospital charges.
    pub fn micro_rho(&self) -> MicroRho {
        self.micro_rho
    }

    /// The delta that each hospital charges: nothing while all group keys are public.
    pub fn atto_delta(&self) -> AttoDelta {
        let spent = self.parts.iter().filter_map(|p| p.names).map(|(_, delta)| delta.get()).sum::<u64>();
        AttoDelta::try_from(spent).unwrap_or(AttoDelta::MAX)
    }

    /// The digest of the plan's canonical text: equal plans release the same quantities.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The logical plan of the SQL as written, for what follows the release.
    pub fn as_written(&self) -> &LogicalPlan {
        &self.as_written
    }
}

impl Part {
    /// The type of the patient column.
    pub fn patient_kind(&self) -> Kind {
        self.patient_kind
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

    /// The grouping sets: without ROLLUP, CUBE or GROUPING SETS one with every key.
    pub fn sets(&self) -> &[Keys] {
        &self.sets
    }

    /// What is summed and released.
    pub fn measures(&self) -> &[Measure] {
        &self.measures
    }

    /// The columns of the answer that come from measures, in the order of the SQL's aggregates.
    pub fn outputs(&self) -> &[Output] {
        &self.outputs
    }

    /// All keys.
    pub(crate) fn every_key(&self) -> Keys {
        self.keys.iter().enumerate().map(|(i, _)| 1 << i).sum()
    }

    /// How many cells the public keys make.
    pub fn cells(&self) -> usize {
        self.cells_over(self.every_key())
    }

    /// The most rows of the released table, margins included.
    pub(crate) fn most_rows(&self) -> usize {
        let names = if self.names.is_some() { MAX_NAMES } else { 1 };
        self.sets.iter().map(|set| self.cells_over(*set)).fold(0, usize::saturating_add).saturating_mul(names)
    }

    /// How many cells the public ones of these keys make.
    pub(crate) fn cells_over(&self, over: Keys) -> usize {
        let cells = self.keys.iter().enumerate().filter(|(i, _)| over & (1 << i) != 0).map(|(_, k)| k.cells());
        // Sixteen keys of sixteen values have 2^64 cells: a plain product would be 0, and pass every limit.
        cells.fold(1, usize::saturating_mul)
    }

    /// Whether a private key is among these.
    pub(crate) fn has_names(&self, over: Keys) -> bool {
        self.keys.iter().enumerate().any(|(i, k)| k.private && over & (1 << i) != 0)
    }

    /// For each cell of the keys `from` its cell of the keys `to`, which are among them.
    pub(crate) fn projection(&self, from: Keys, to: Keys) -> Vec<u32> {
        let mut places = vec![0_u32];
        for (i, key) in self.keys.iter().enumerate().filter(|(i, _)| from & (1 << i) != 0) {
            let cells = u32::try_from(key.cells()).unwrap_or(u32::MAX);
            let kept = to & (1 << i) != 0;
            let next =
                |place: &u32| (0..cells).map(|c| if kept { place * cells + c } else { *place }).collect::<Vec<_>>();
            places = places.iter().flat_map(next).collect();
        }
        places
    }

    /// How many numbers a measure has for each cell.
    pub(crate) fn width(&self, measure: &Measure) -> usize {
        match &measure.quantity {
            Quantity::Histogram { argument } => self.tree(*argument).map_or(1, |t| t.nodes()),
            Quantity::Rows
            | Quantity::Present { .. }
            | Quantity::Sum { .. }
            | Quantity::Patients { .. }
            | Quantity::Heavy => 1,
        }
    }

    /// How many numbers a measure has in a release with so many names; 1 where no key is private.
    pub(crate) fn numbers(&self, measure: &Measure, names: usize) -> usize {
        let names = if self.has_names(measure.over) { names } else { 1 };
        names.saturating_mul(self.cells_over(measure.over)).saturating_mul(self.width(measure))
    }

    /// How many numbers a measure has in a release: in an exact one those of every grouping set, one set after another.
    pub(crate) fn released(&self, measure: &Measure, names: usize) -> usize {
        if self.exact && !matches!(measure.quantity, Quantity::Patients { .. }) {
            return self.sets.iter().map(|set| self.cells_over(*set)).sum();
        }
        self.numbers(measure, names)
    }

    /// The tree over the range of an argument; an admitted histogram has one.
    pub(crate) fn tree(&self, argument: usize) -> Option<Tree> {
        let (lo, hi) = self.arguments.get(argument)?.range?;
        Tree::over(lo, hi)
    }

    /// How many lattice units one row of full weight counts.
    pub fn weight_one(&self) -> i128 {
        if self.one_row || self.exact { 1 } else { WEIGHT_ONE }
    }

    /// How many lattice units one patient counts in a count of patients over the cells of these keys.
    pub(crate) fn patient_one(&self, over: Keys) -> i128 {
        let few = !self.has_names(over) && self.cells_over(over) as u64 <= self.groups_per_patient;
        if few || self.one_row || self.exact { 1 } else { WEIGHT_ONE }
    }

    /// How many lattice units a measure's unit (one row, one patient, or a value of 1) is.
    pub fn unit(&self, measure: &Measure) -> i128 {
        match &measure.quantity {
            Quantity::Rows | Quantity::Present { .. } | Quantity::Histogram { .. } => self.weight_one(),
            Quantity::Sum { argument, .. } => {
                self.weight_one() * 10_i128.pow(self.arguments.get(*argument).map_or(0, |a| a.scale))
            }
            Quantity::Patients { .. } => self.patient_one(measure.over),
            Quantity::Heavy => 1,
        }
    }

    /// The most that one patient, with all their rows, moves a measure's vector: as the square of the Euclidean norm, and as
    /// the sum of absolute values, in lattice units (squared).
    pub fn sensitivity(&self, measure: &Measure) -> (BigUint, BigUint) {
        // A patient's weights sum to at most k; the norm is largest when all fall into one cell.
        let rows = BigUint::from(self.rows_per_patient) * BigUint::from(self.weight_one().unsigned_abs());
        match &measure.quantity {
            Quantity::Rows | Quantity::Present { .. } => (&rows * &rows, rows),
            Quantity::Sum { argument, centre } => {
                let most = rows * BigUint::from(self.reach(*argument, *centre));
                (&most * &most, most)
            }
            // On each level of the tree a row is in one node.
            Quantity::Histogram { argument } => {
                let levels = BigUint::from(self.tree(*argument).map_or(1, |t| t.levels().len()));
                (&levels * &rows * &rows, levels * rows)
            }
            // g <= G cells of one unit each; or G²/g < G when spread over more.
            Quantity::Patients { .. } => {
                let cells = if self.has_names(measure.over) { u64::MAX } else { self.cells_over(measure.over) as u64 };
                let groups = if self.one_row { 1 } else { self.groups_per_patient.min(cells) };
                let one = BigUint::from(self.patient_one(measure.over).unsigned_abs());
                (BigUint::from(groups) * &one * &one, BigUint::from(groups) * one)
            }
            Quantity::Heavy => (BigUint::from(1_u32), BigUint::from(1_u32)),
        }
    }

    /// The largest distance of a clamped value from `centre`.
    pub(crate) fn reach(&self, argument: usize, centre: i128) -> u128 {
        let (lo, hi) = self.arguments.get(argument).and_then(|a| a.range).unwrap_or((0, 0));
        (lo - centre).unsigned_abs().max((hi - centre).unsigned_abs())
    }

    /// The noise of a measure, in lattice units; `None` if its sensitivity or price is zero, which no admitted measure has.
    pub fn noise(&self, measure: &Measure) -> Option<Noise> {
        let (squared, absolute) = self.sensitivity(measure);
        match measure.price {
            Price::Rho(rho) => Noise::gaussian(&squared, rho).ok(),
            Price::Epsilon(micro_epsilon) => Noise::laplace(&absolute, micro_epsilon).ok(),
        }
    }

    /// The range of an argument in natural units.
    #[expect(clippy::cast_precision_loss, reason = "for intervals, which are real numbers")]
    pub(crate) fn natural_range(&self, argument: usize) -> (f64, f64) {
        let Some(argument) = self.arguments.get(argument) else { return (f64::NEG_INFINITY, f64::INFINITY) };
        let (lo, hi) = argument.range.unwrap_or((0, 0));
        let ten = 10_f64.powi(argument.scale.cast_signed());
        (lo as f64 / ten, hi as f64 / ten)
    }

    /// The keys of a cell over the keys of one grouping set: for each group key a value, NULL, "outside", or that the set leaves
    /// it out. `name` is the value of the private key.
    pub fn cell(&self, set: Keys, mut ordinal: usize, name: Option<&Option<KeyValue>>) -> Vec<CellKey> {
        let mut keys = Vec::with_capacity(self.keys.len());
        for (i, key) in self.keys.iter().enumerate().rev() {
            if set & (1 << i) == 0 {
                keys.push(CellKey::All);
                continue;
            }
            if key.private {
                keys.push(name.cloned().flatten().map_or(CellKey::Null, CellKey::Value));
                continue;
            }
            let place = ordinal % key.cells();
            ordinal /= key.cells();
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
    /// All values: the grouping set leaves the key out.
    All,
}
