//! The only door out: exact cells become a [`Release`] by exact discrete Gaussian noise on every cell.
//!
//! Noise is drawn on the lattice on which the sums live, with the variance that the plan's sensitivity and share of
//! rho give (Canonne, Kamath, Steinke 2020, Theorem 4). Every declared cell is emitted. The header says what the
//! numbers are; the digest covers header, nonce and cells.

use std::{collections::HashMap, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, AsArray, Decimal128Array, UInt32Array},
    datatypes::{DataType, Decimal128Type, Field, Schema, UInt32Type},
    record_batch::RecordBatch,
};
use chrono::NaiveDate;
use rand::{CryptoRng, RngCore};
use sekisho_protocol::{digest::Digest, units::MicroRho};
use serde::{Deserialize, Serialize};

use crate::{
    fold::RawCells,
    noise::{DiscreteGaussian, Variance},
    plan::{Measure, PrivatePlan},
    reservation::Reservation,
};

/// The largest number that a release holds: 38 digits, as Decimal128 has.
const LARGEST: i128 = 99_999_999_999_999_999_999_999_999_999_999_999_999;
/// The key of the header in the arrow schema's metadata.
const HEADER_KEY: &str = "sekisho.release";
/// The most bytes of a header.
const MAX_HEADER_BYTES: usize = 64 << 10;

/// What one measure of a release is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MeasureHeader {
    /// `rows`, `present`, `sum` or `patients`.
    pub kind: String,
    /// How many lattice units make one row, one patient, or a value of 1.
    pub unit: String,
    /// The variance of the noise in lattice units squared, as an exact fraction.
    pub variance: Variance,
}

/// What a release is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReleaseHeader {
    /// The permit, by digest.
    pub permit: Digest,
    /// What makes the question the same one.
    pub query_key: Digest,
    /// Which run.
    pub run: u32,
    /// The private plan, by digest.
    pub plan: Digest,
    /// The charge.
    pub micro_rho: MicroRho,
    /// The day as of which patients were eligible.
    pub as_of: NaiveDate,
    /// The data set was declared synthetic.
    pub synthetic: bool,
    /// 256 random bits in hexadecimal, so that the digest tells nothing of the cells.
    pub nonce: String,
    /// The measures, in the order of the columns.
    pub measures: Vec<MeasureHeader>,
}

/// Noised cells, and what they are.
#[derive(Clone, PartialEq, Eq)]
pub struct Release {
    header: ReleaseHeader,
    cells: Vec<Vec<i128>>,
}

/// Why bytes or a batch are no release.
#[derive(Debug, thiserror::Error)]
#[error("not a release: {0}")]
pub struct NotARelease(&'static str);

fn kind(measure: &Measure) -> &'static str {
    match measure {
        Measure::Rows => "rows",
        Measure::Present { .. } => "present",
        Measure::Sum { .. } => "sum",
        Measure::Patients { .. } => "patients",
    }
}

/// The measure headers that a release of `plan` must have.
pub(crate) fn measure_headers(plan: &PrivatePlan) -> Option<Vec<MeasureHeader>> {
    let one = |m: &Measure| {
        Some(MeasureHeader { kind: kind(m).into(), unit: plan.unit(m).to_string(), variance: plan.variance(m)? })
    };
    plan.measures().iter().map(one).collect()
}

impl Release {
    /// Adds noise to every cell of `raw` and lets it out.
    ///
    /// `rng` must be a cryptographic generator seeded by the operating system, used for this release only.
    /// Returns `None` when `raw` or `reservation` belong to another plan, or no noise can be made: then nothing leaves.
    pub fn make<R: RngCore + CryptoRng, T>(
        plan: &PrivatePlan,
        raw: RawCells,
        reservation: &Reservation<T>,
        as_of: NaiveDate,
        synthetic: bool,
        rng: &mut R,
    ) -> Option<Self> {
        if reservation.plan() != plan.digest() || raw.measures.len() != plan.measures().len() {
            return None;
        }
        let measures = measure_headers(plan)?;
        let mut cells = raw.measures;
        for (header, cells) in measures.iter().zip(&mut cells) {
            let noise = DiscreteGaussian::new(&header.variance);
            for cell in cells {
                *cell = cell.saturating_add(noise.sample(rng)).clamp(-LARGEST, LARGEST);
            }
        }
        let mut nonce = [0; 32];
        rng.fill_bytes(&mut nonce);
        let charge = reservation.charge();
        let header = ReleaseHeader {
            permit: charge.permit,
            query_key: charge.query_key,
            run: charge.run,
            plan: plan.digest(),
            micro_rho: charge.micro_rho,
            as_of,
            synthetic,
            nonce: hex::encode(nonce),
            measures,
        };
        Some(Self { header, cells })
    }

    /// What the release is.
    pub fn header(&self) -> &ReleaseHeader {
        &self.header
    }

    /// For each measure its cells, in lattice units.
    pub fn cells(&self) -> &[Vec<i128>] {
        &self.cells
    }

    /// The header as JSON and the cells as 16-byte little-endian integers, measure by measure: what is stored, and
    /// what the digest is of.
    pub fn to_bytes(&self) -> (Vec<u8>, Vec<u8>) {
        // Strings and numbers only: this cannot fail.
        let header = serde_json::to_vec(&self.header).unwrap_or_default();
        let cells = self.cells.iter().flatten().flat_map(|c| c.to_le_bytes()).collect();
        (header, cells)
    }

    /// Reads what [`to_bytes`](Self::to_bytes) wrote.
    ///
    /// # Errors
    /// When the bytes are anything else.
    pub fn from_bytes(header: &[u8], cells: &[u8]) -> Result<Self, NotARelease> {
        if header.len() > MAX_HEADER_BYTES {
            return Err(NotARelease("its header is too long"));
        }
        let header: ReleaseHeader =
            serde_json::from_slice(header).map_err(|_| NotARelease("its header is malformed"))?;
        let numbers: Vec<i128> =
            cells.chunks_exact(16).filter_map(|c| <[u8; 16]>::try_from(c).ok()).map(i128::from_le_bytes).collect();
        let measures = header.measures.len();
        if measures == 0
            || numbers.is_empty()
            || numbers.len() * 16 != cells.len()
            || !numbers.len().is_multiple_of(measures)
        {
            return Err(NotARelease("its cells are not whole"));
        }
        let cells = numbers.chunks(numbers.len() / measures).map(<[i128]>::to_vec).collect();
        Ok(Self { header, cells })
    }

    /// SHA-256 over header and cells, each with its length before it.
    pub fn digest(&self) -> Digest {
        let (header, cells) = self.to_bytes();
        Digest::of_parts(&[b"sekisho release v1", &header, &cells])
    }

    /// The release as one Arrow batch: `cell` UInt32, then per measure a Decimal128(38, 0); the header in the
    /// schema's metadata.
    ///
    /// # Errors
    /// When a number does not fit, which [`make`](Self::make) prevents.
    pub fn to_batch(&self) -> Result<RecordBatch, NotARelease> {
        let wrong = |_| NotARelease("a number does not fit");
        let n = u32::try_from(self.cells.first().map_or(0, Vec::len)).map_err(|_| NotARelease("too many cells"))?;
        let mut fields = vec![Field::new("cell", DataType::UInt32, false)];
        let mut columns: Vec<ArrayRef> = vec![Arc::new(UInt32Array::from_iter_values(0..n))];
        for (i, cells) in self.cells.iter().enumerate() {
            let array = Decimal128Array::from_iter_values(cells.iter().copied());
            columns.push(Arc::new(array.with_precision_and_scale(38, 0).map_err(wrong)?));
            fields.push(Field::new(format!("m{i}"), DataType::Decimal128(38, 0), false));
        }
        let header = String::from_utf8(self.to_bytes().0).map_err(|_| NotARelease("its header is no text"))?;
        let schema = Schema::new_with_metadata(fields, HashMap::from([(HEADER_KEY.to_string(), header)]));
        RecordBatch::try_new(Arc::new(schema), columns).map_err(wrong)
    }

    /// Reads what [`to_batch`](Self::to_batch) wrote; a batch from a node is anybody's bytes.
    ///
    /// # Errors
    /// When columns, types, order or header are anything else.
    pub fn from_batch(batch: &RecordBatch) -> Result<Self, NotARelease> {
        let schema = batch.schema();
        let header = schema.metadata().get(HEADER_KEY).ok_or(NotARelease("it has no header"))?;
        let ordinals = batch.columns().first().and_then(|c| c.as_primitive_opt::<UInt32Type>());
        let ordinals = ordinals.ok_or(NotARelease("it has no cell column"))?;
        if ordinals.null_count() > 0
            || !ordinals.values().iter().copied().eq(0..u32::try_from(ordinals.len()).unwrap_or(0))
        {
            return Err(NotARelease("its cells are not in order"));
        }
        let mut bytes = Vec::with_capacity(batch.num_rows() * 16);
        for column in &batch.columns()[1..] {
            let numbers =
                column.as_primitive_opt::<Decimal128Type>().ok_or(NotARelease("a column is no Decimal128"))?;
            if numbers.null_count() > 0 {
                return Err(NotARelease("a cell is missing"));
            }
            for number in numbers.values() {
                if !(-LARGEST..=LARGEST).contains(number) {
                    return Err(NotARelease("a number has more than 38 digits"));
                }
                bytes.extend_from_slice(&number.to_le_bytes());
            }
        }
        let release = Self::from_bytes(header.as_bytes(), &bytes)?;
        if release.cells.len() + 1 != batch.num_columns() {
            return Err(NotARelease("it has more or fewer measures than its header says"));
        }
        Ok(release)
    }
}
