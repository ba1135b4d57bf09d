//! Writes a synthetic network of hospitals whose true answers are known.
//!
//! For demonstrations, tests and benchmarks: sources in Parquet and a patient register in CSV for each
//! hospital, and one `truth.json` with the answers an omniscient observer would give. Codes, names of
//! columns and rates are Japanese in flavour (ICD-10, DPC, ATC, YJ, JLAC10, JIS X 0401).
//!
//! Promises: the same [`Plan`] gives the same bytes; rows are streamed, so memory is bounded by a few
//! batches whatever the plan asks; the truth is counted while drawing, never by a query engine. The
//! sources hold planted identifiers (`PLANT-…`, patient numbers beginning 7345), so that a test can grep
//! for what must never leave a hospital.
//!
//! Deliberately not here: a model of disease. The figures are plausible, not epidemiology, and nobody in
//! them ever lived.

mod codes;
mod events;
mod network;
mod person;
mod register;
mod stream;
mod tables;
mod truth;

#[cfg(test)]
mod tests;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use chrono::{Datelike, NaiveDate};
use parquet::errors::ParquetError;

pub use truth::{AGE_BANDS, AgeSexCount, Cells, DrugCount, HospitalTruth, RowsWritten, TRUTH_FILE, Truth};

use events::Visits;
use network::Network;
use person::{Person, Place, Sex};
use register::RegisterFile;
use tables::{Summary, Tables};
use truth::Tally;

/// Rows per Parquet batch and per row group: what is held of each table before it is written.
const BATCH_ROWS: usize = 65_536;

/// The most patients one plan may ask for.
pub const MAX_PATIENTS: u64 = 100_000_000;

/// The most event rows one plan may ask for.
pub const MAX_ROWS: u64 = 100_000_000_000;

/// What network to generate. Two equal plans give byte-identical directories.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Hospitals, 1 to 100; their sizes go as 5 : 3 : 2 : 1.5 : 1, repeating.
    pub hospitals: usize,
    /// Patients over all hospitals, at least one each, at most [`MAX_PATIENTS`]. A person who is a patient
    /// at two hospitals counts twice.
    pub patients: u64,
    /// Rows over all event tables (stay, diagnosis, prescription, lab) of all hospitals; met exactly.
    /// At most [`MAX_ROWS`].
    pub rows: u64,
    /// What every draw derives from.
    pub seed: u64,
    /// The day on which the sources end and eligibility is counted; years 1970 to 2200. A node that
    /// judges eligibility on a later day finds more patients notified long enough.
    pub as_of: NaiveDate,
}

/// Why a network could not be generated.
#[derive(Debug, thiserror::Error)]
pub enum GenerateError {
    /// The plan asks for something out of range.
    #[error("plan: {field} = {given} is out of range; give {want}")]
    Plan {
        /// The field of [`Plan`].
        field: &'static str,
        /// What it held.
        given: String,
        /// What it may hold.
        want: String,
    },
    /// The output directory holds something already.
    #[error(
        "{} is not empty; name a new or empty directory, nothing is ever overwritten",
        path.display()
    )]
    NotEmpty {
        /// The directory.
        path: PathBuf,
    },
    /// A file or directory could not be made, read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A Parquet file could not be written.
    #[error("{}: cannot write Parquet: {source}", path.display())]
    Parquet {
        /// The file.
        path: PathBuf,
        /// What the writer said.
        source: ParquetError,
    },
}

impl GenerateError {
    fn io(path: &Path, source: io::Error) -> Self {
        Self::Io { path: path.to_owned(), source }
    }

    fn plan(field: &'static str, given: &dyn ToString, want: String) -> Self {
        Self::Plan { field, given: given.to_string(), want }
    }
}

/// Writes the network of `plan` under `out` and returns its truth, which is also in `out/truth.json`.
///
/// `out` gets `hospital-1/`, `hospital-2/`, …, each with `patient_summary.parquet`, `stay.parquet`,
/// `diagnosis.parquet`, `prescription.parquet`, `lab.parquet` and `register.csv`. `truth.json` is written
/// last: where it exists, the network is complete. `progress` hears rows written and rows in all
/// (patient summaries included) after each batch.
///
/// # Errors
/// [`GenerateError::Plan`] for a plan out of range, [`GenerateError::NotEmpty`] if `out` holds anything
/// (neither writes), else [`GenerateError::Io`] or [`GenerateError::Parquet`], leaving a partial
/// directory behind.
pub fn generate(plan: &Plan, out: &Path, progress: &dyn Fn(u64, u64)) -> Result<Truth, GenerateError> {
    generate_in_batches(plan, out, progress, BATCH_ROWS)
}

fn generate_in_batches(
    plan: &Plan,
    out: &Path,
    progress: &dyn Fn(u64, u64),
    batch_rows: usize,
) -> Result<Truth, GenerateError> {
    check(plan)?;
    claim(out)?;
    let network = Network::lay_out(plan);
    let mut shares = network.row_shares();
    let total = plan.patients + plan.rows;
    let mut before = 0;
    let mut hospitals = Vec::with_capacity(plan.hospitals);
    for hospital in 0..plan.hospitals {
        let dir = out.join(hospital_name(hospital));
        fs::create_dir(&dir).map_err(|e| GenerateError::io(&dir, e))?;
        let told = |rows| progress(before + rows, total);
        let tables = Tables::create(&dir, batch_rows, &told)?;
        let truth = write_hospital(&network, hospital, &mut shares, &dir, tables)?;
        before += truth.patients + truth.rows.events();
        hospitals.push(truth);
    }
    let truth = Truth::new(plan, network.at_two_hospitals(), hospitals);
    truth.save(out)?;
    progress(total, total);
    Ok(truth)
}

/// The directory of the hospital with this index, and its name in the truth: `hospital-1` for 0.
fn hospital_name(index: usize) -> String {
    format!("hospital-{}", index + 1)
}

fn write_hospital(
    network: &Network,
    hospital: usize,
    shares: &mut network::RowShares<'_>,
    dir: &Path,
    mut tables: Tables<'_>,
) -> Result<HospitalTruth, GenerateError> {
    let mut register = RegisterFile::create(dir)?;
    let mut tally = Tally::default();
    let mut visits = Visits::new(network, hospital);
    for slot in 0..network.patients(hospital) {
        let person = network.person(hospital, slot);
        let place = Place::draw(network, hospital, slot, &person);
        let patient_id = network.patient_id(hospital, slot);
        let mut eligible = false;
        if let Some(entry) = &place.entry {
            eligible = entry.eligible_on(network.as_of());
            register.write(patient_id, entry)?;
        }
        tally.count(&person, &place, eligible);
        tables.summary(summary_of(patient_id, &person, &place))?;
        let rows = shares.next_patient(hospital, slot);
        visits.admit(slot, patient_id, &person, rows, &mut tables)?;
    }
    visits.finish(&mut tables)?;
    register.finish()?;
    let rows = tables.finish()?;
    Ok(tally.into_truth(hospital_name(hospital), rows))
}

fn summary_of(patient_id: i64, person: &Person, place: &Place) -> Summary {
    Summary {
        patient_id,
        name: person.name(),
        insurance_no: person.insurance_no(),
        age: person.age,
        sex: person.sex.map(Sex::as_str),
        prefecture: person.prefecture,
        diabetes_stage: person.stage.as_str(),
        complications: person.complications,
        first_drug: place.first_drug.as_str(),
        adverse_event: place.adverse_event,
        weight_hectograms: place.weight_hectograms,
    }
}

/// Refuses what the rest of this module could not represent.
fn check(plan: &Plan) -> Result<(), GenerateError> {
    if !(1..=100).contains(&plan.hospitals) {
        let want = "1 to 100 hospitals".to_owned();
        return Err(GenerateError::plan("hospitals", &plan.hospitals, want));
    }
    if !(plan.hospitals as u64..=MAX_PATIENTS).contains(&plan.patients) {
        let want = format!("{} (one a hospital) to {MAX_PATIENTS}", plan.hospitals);
        return Err(GenerateError::plan("patients", &plan.patients, want));
    }
    if plan.rows > MAX_ROWS {
        let want = format!("0 to {MAX_ROWS} rows");
        return Err(GenerateError::plan("rows", &plan.rows, want));
    }
    if !(1970..=2200).contains(&plan.as_of.year()) {
        let want = "a day in the years 1970 to 2200".to_owned();
        return Err(GenerateError::plan("as_of", &plan.as_of, want));
    }
    Ok(())
}

/// Makes `out`, or takes it if it is there and empty.
fn claim(out: &Path) -> Result<(), GenerateError> {
    fs::create_dir_all(out).map_err(|e| GenerateError::io(out, e))?;
    let mut entries = fs::read_dir(out).map_err(|e| GenerateError::io(out, e))?;
    if entries.next().is_some() {
        return Err(GenerateError::NotEmpty { path: out.to_owned() });
    }
    Ok(())
}
