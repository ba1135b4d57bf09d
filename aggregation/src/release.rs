//! The only doors out: exact cells become a [`Release`] by exact discrete noise on every number; or, of a query that the permit
//! lists as `aggregated` and a person has reviewed, by disclosure rules ([`Release::exact`]).
//!
//! Noise is drawn on the lattice on which the sums live, with the scale that the plan's sensitivity and price
//! give (Canonne, Kamath, Steinke 2020, Theorem 4). Every declared cell is emitted; of a key that is not public, those names
//! whose noised number of patients reaches a threshold. The header says what the numbers are; the digest covers header, nonce
//! and numbers.

use std::{collections::HashMap, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, AsArray, Decimal128Array},
    datatypes::{DataType, Decimal128Type, Field, Schema},
    record_batch::RecordBatch,
};
use chrono::NaiveDate;
use rand::{CryptoRng, RngCore};
use sekisho_protocol::{
    digest::Digest,
    disclosure::Rules,
    units::{AttoDelta, MicroRho},
};
use serde::{Deserialize, Serialize};

use crate::{
    analyse::MAX_NUMBERS,
    domain::KeyValue,
    exact::{Fit, Reviewed, fit},
    fold::{MAX_SLOTS, RawCells, RawPart},
    noise::Noise,
    plan::{Measure, Part, PrivatePlan, Quantity},
    reservation::Reservation,
    threshold::threshold,
};

/// The largest number that a release holds: 38 digits, as Decimal128 has.
const LARGEST: i128 = 99_999_999_999_999_999_999_999_999_999_999_999_999;
/// The key of the header in the arrow schema's metadata.
const HEADER_KEY: &str = "sekisho.release";
/// The most bytes of a header.
const MAX_HEADER_BYTES: usize = 2 << 20;
/// The most names of a part that are released: those with the most patients.
const MAX_NAMES: usize = 2_000;

/// What one measure of a release is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MeasureHeader {
    /// `rows`, `present`, `sum`, `patients`, `heavy` or `histogram`.
    pub kind: String,
    /// How many lattice units make one row, one patient, or a value of 1.
    pub unit: String,
    /// How many numbers it has.
    pub numbers: usize,
    /// The noise in lattice units, as exact fractions; none in exact releases, and only there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub noise: Option<Noise>,
}

/// What one part of a release is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PartHeader {
    /// The names of the private key that were let out, sorted; none where every key is public.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub names: Option<Vec<Option<KeyValue>>>,
    /// The measures, in the order of the numbers.
    pub measures: Vec<MeasureHeader>,
    /// The rows of an exact table that are hidden, in ascending order: their numbers are 0. Rows are those of each grouping
    /// set, one set after another.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hidden: Vec<u32>,
}

/// What an exact release says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExactHeader {
    /// The rules by which cells are hidden and rounded: the permit's, or stricter ones of the hospital.
    pub rules: Rules,
    /// The day of the cut of the data.
    pub cut: NaiveDate,
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
    /// The charge in delta.
    #[serde(default, skip_serializing_if = "AttoDelta::is_zero")]
    pub atto_delta: AttoDelta,
    /// The day as of which patients were eligible.
    pub as_of: NaiveDate,
    /// The data set was declared synthetic.
    pub synthetic: bool,
    /// 256 random bits in hexadecimal, so that the digest tells nothing of the cells.
    pub nonce: String,
    /// The parts, in the order of the plan.
    pub parts: Vec<PartHeader>,
    /// Of an exact release, under which rules and of which day it is; none of a noised one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exact: Option<ExactHeader>,
}

/// Noised numbers, or exact ones that are fit to leave, and what they are.
#[derive(Clone, PartialEq, Eq)]
pub struct Release {
    header: ReleaseHeader,
    parts: Vec<Vec<Vec<i128>>>,
}

/// Why bytes or a batch are no release.
#[derive(Debug, thiserror::Error)]
#[error("not a release: {0}")]
pub struct NotARelease(&'static str);

/// The kind of a measure, as headers and reports name it.
pub fn kind(measure: &Measure) -> &'static str {
    match measure.quantity {
        Quantity::Rows => "rows",
        Quantity::Present { .. } => "present",
        Quantity::Sum { .. } => "sum",
        Quantity::Patients { .. } => "patients",
        Quantity::Heavy => "heavy",
        Quantity::Histogram { .. } => "histogram",
    }
}

/// The header that a release of `part` with these names must have.
pub(crate) fn part_header(part: &Part, names: Option<Vec<Option<KeyValue>>>) -> Option<PartHeader> {
    let count = names.as_ref().map_or(1, Vec::len);
    let one = |m: &Measure| {
        Some(MeasureHeader {
            kind: kind(m).into(),
            unit: part.unit(m).to_string(),
            numbers: part.released(m, count),
            noise: if part.exact { None } else { Some(part.noise(m)?) },
        })
    };
    let measures = part.measures().iter().map(one).collect::<Option<_>>()?;
    Some(PartHeader { names, measures, hidden: Vec::new() })
}

/// A number with noise of its own.
fn noised(number: i128, noise: i128) -> i128 {
    number.saturating_add(noise).clamp(-LARGEST, LARGEST)
}

/// Adds noise to every number of one part, and lets out the names that may be.
fn make_part<R: RngCore + CryptoRng>(part: &Part, raw: RawPart, rng: &mut R) -> Option<(PartHeader, Vec<Vec<i128>>)> {
    let RawPart { names, mut measures, .. } = raw;
    if measures.len() != part.measures().len() {
        return None;
    }
    let mut done = None;
    let mut kept = None;
    if let Some((place, delta)) = part.names {
        let measure = part.measures().get(place)?;
        let patients = measures.get_mut(place).filter(|numbers| numbers.len() == names.len())?;
        let Noise::Gaussian(variance) = part.noise(measure)? else { return None };
        let least = threshold(&variance, part.unit(measure), MAX_SLOTS as u64, delta)?;
        let sampler = Noise::Gaussian(variance).sampler().ok()?;
        patients.iter_mut().for_each(|n| *n = noised(*n, sampler.sample(rng)));
        // What follows looks at noised numbers only.
        let each = part.measures().iter().map(|m| part.numbers(m, 1)).sum::<usize>().max(1);
        let most = MAX_NAMES.min(MAX_NUMBERS / each);
        let mut out: Vec<usize> = (0..names.len()).filter(|i| patients[*i] >= least).collect();
        out.sort_by_key(|i| std::cmp::Reverse(patients[*i]));
        out.truncate(most);
        out.sort_unstable();
        for (measure, numbers) in part.measures().iter().zip(&mut measures).filter(|(m, _)| part.has_names(m.over)) {
            let stride = part.numbers(measure, 1);
            *numbers =
                out.iter().map(|i| numbers.get(i * stride..(i + 1) * stride)).collect::<Option<Vec<_>>>()?.concat();
        }
        kept = Some(out.into_iter().map(|i| names[i].clone()).collect());
        done = Some(place);
    }
    let header = part_header(part, kept)?;
    for (i, (header, numbers)) in header.measures.iter().zip(&mut measures).enumerate() {
        if header.numbers != numbers.len() {
            return None;
        }
        if done != Some(i) {
            let sampler = header.noise.as_ref()?.sampler().ok()?;
            numbers.iter_mut().for_each(|n| *n = noised(*n, sampler.sample(rng)));
        }
    }
    Some((header, measures))
}

impl Release {
    /// Adds noise to every number of `raw` and lets it out.
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
        if reservation.plan() != plan.digest() || raw.parts.len() != plan.parts().len() {
            return None;
        }
        let made = plan.parts().iter().zip(raw.parts).map(|(part, raw)| make_part(part, raw, rng));
        let (headers, parts) = made.collect::<Option<Vec<_>>>()?.into_iter().unzip();
        let mut nonce = [0; 32];
        rng.fill_bytes(&mut nonce);
        let charge = reservation.charge();
        let header = ReleaseHeader {
            permit: charge.permit,
            query_key: charge.query_key,
            run: charge.run,
            plan: plan.digest(),
            micro_rho: charge.micro_rho,
            atto_delta: charge.atto_delta,
            as_of,
            synthetic,
            nonce: hex::encode(nonce),
            parts: headers,
            exact: None,
        };
        Some(Self { header, parts })
    }

    /// Hides and rounds the cells of an exact plan and lets out the rest: numbers without noise.
    ///
    /// `rng` must be a cryptographic generator seeded by the operating system, used for this release only: the nonce comes from
    /// it. `cut` is the day of the cut of the data. Returns `None` when the plan is a noised one, `raw` or `reviewed` belong to
    /// another, or `rules` are weaker than the permit's: then nothing leaves.
    #[expect(
        clippy::too_many_arguments,
        reason = "each says another thing of the release, and most have types of their own"
    )]
    pub fn exact<R: RngCore + CryptoRng, T>(
        plan: &PrivatePlan,
        raw: RawCells,
        reviewed: &Reviewed<T>,
        rules: &Rules,
        as_of: NaiveDate,
        cut: NaiveDate,
        synthetic: bool,
        rng: &mut R,
    ) -> Option<Self> {
        let patients = raw.parts.first()?.read.patients;
        if reviewed.plan() != plan.digest() || reviewed.patients() != patients {
            return None;
        }
        let Fit { header, numbers, why: _ } = fit(plan, &raw, rules)?;
        if numbers.iter().flatten().any(|number| !(-LARGEST..=LARGEST).contains(number)) {
            return None;
        }
        let mut nonce = [0; 32];
        rng.fill_bytes(&mut nonce);
        let claim = reviewed.claim();
        let header = ReleaseHeader {
            permit: claim.permit,
            query_key: claim.query_key,
            run: claim.run,
            plan: plan.digest(),
            micro_rho: MicroRho::ZERO,
            atto_delta: AttoDelta::ZERO,
            as_of,
            synthetic,
            nonce: hex::encode(nonce),
            parts: vec![header],
            exact: Some(ExactHeader { rules: *rules, cut }),
        };
        Some(Self { header, parts: vec![numbers] })
    }

    /// What the release is.
    pub fn header(&self) -> &ReleaseHeader {
        &self.header
    }

    /// For each part and measure its numbers, in lattice units.
    pub fn parts(&self) -> &[Vec<Vec<i128>>] {
        &self.parts
    }

    /// The header as JSON and the numbers as 16-byte little-endian integers, measure by measure: what is stored, and
    /// what the digest is of.
    pub fn to_bytes(&self) -> (Vec<u8>, Vec<u8>) {
        // Strings and numbers only: this cannot fail.
        let header = serde_json::to_vec(&self.header).unwrap_or_default();
        let cells = self.parts.iter().flatten().flatten().flat_map(|c| c.to_le_bytes()).collect();
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
        let sizes = header.parts.iter().flat_map(|p| &p.measures).map(|m| m.numbers);
        let total = sizes.fold(0_usize, usize::saturating_add);
        if total == 0 || total.saturating_mul(16) != cells.len() {
            return Err(NotARelease("its numbers are not as many as its header says"));
        }
        let mut left = cells.chunks_exact(16).filter_map(|c| <[u8; 16]>::try_from(c).ok()).map(i128::from_le_bytes);
        let mut take = |m: &MeasureHeader| left.by_ref().take(m.numbers).collect();
        let parts = header.parts.iter().map(|p| p.measures.iter().map(&mut take).collect()).collect();
        Ok(Self { header, parts })
    }

    /// SHA-256 over header and numbers, each with its length before it.
    pub fn digest(&self) -> Digest {
        let (header, cells) = self.to_bytes();
        Digest::of_parts(&[b"sekisho release v1", &header, &cells])
    }

    /// The release as one Arrow batch: one column `value`, Decimal128(38, 0), measure by measure; the header in the schema's
    /// metadata.
    ///
    /// # Errors
    /// When a number does not fit, which [`make`](Self::make) prevents.
    pub fn to_batch(&self) -> Result<RecordBatch, NotARelease> {
        let wrong = |_| NotARelease("a number does not fit");
        let values = Decimal128Array::from_iter_values(self.parts.iter().flatten().flatten().copied());
        let values: ArrayRef = Arc::new(values.with_precision_and_scale(38, 0).map_err(wrong)?);
        let header = String::from_utf8(self.to_bytes().0).map_err(|_| NotARelease("its header is no text"))?;
        let fields = vec![Field::new("value", DataType::Decimal128(38, 0), false)];
        let schema = Schema::new_with_metadata(fields, HashMap::from([(HEADER_KEY.to_string(), header)]));
        RecordBatch::try_new(Arc::new(schema), vec![values]).map_err(wrong)
    }

    /// Reads what [`to_batch`](Self::to_batch) wrote; a batch from a node is anybody's bytes.
    ///
    /// # Errors
    /// When columns, types or header are anything else.
    pub fn from_batch(batch: &RecordBatch) -> Result<Self, NotARelease> {
        let schema = batch.schema();
        let header = schema.metadata().get(HEADER_KEY).ok_or(NotARelease("it has no header"))?;
        let [column] = batch.columns() else { return Err(NotARelease("it has other columns than one")) };
        let numbers = column.as_primitive_opt::<Decimal128Type>().ok_or(NotARelease("its column is no Decimal128"))?;
        if numbers.null_count() > 0 {
            return Err(NotARelease("a number is missing"));
        }
        if numbers.values().iter().any(|number| !(-LARGEST..=LARGEST).contains(number)) {
            return Err(NotARelease("a number has more than 38 digits"));
        }
        let bytes: Vec<u8> = numbers.values().iter().flat_map(|n| n.to_le_bytes()).collect();
        Self::from_bytes(header.as_bytes(), &bytes)
    }
}
