//! The answers of an omniscient observer, counted while patients are drawn, and `truth.json`.
//!
//! Promises: every declared cell is there, empty ones as 0, in a fixed order. Cells count eligible
//! patients only. Never given to a node or coordinator: a demonstration holds it against what they say.

use std::fs;
use std::path::Path;

use chrono::NaiveDate;
use serde::{Deserialize, Serialize};

use super::person::{FirstDrug, Person, Place, Sex, Stage};
use super::{GenerateError, Plan};

/// The name of the truth's file in the network's directory.
pub const TRUTH_FILE: &str = "truth.json";

/// Age bands of the truth, in completed years.
pub const AGE_BANDS: [&str; 5] = ["0-17", "18-39", "40-64", "65-74", "75+"];

const SEXES: [Option<Sex>; 3] = [Some(Sex::Female), Some(Sex::Male), None];

/// The index in [`AGE_BANDS`] of an age in years.
pub(super) fn age_band(age: i64) -> usize {
    match age {
        ..18 => 0,
        18..40 => 1,
        40..65 => 2,
        65..75 => 3,
        75.. => 4,
    }
}

/// What is true of a generated network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Truth {
    /// The seed of the plan.
    pub seed: u64,
    /// The day on which eligibility was counted.
    pub as_of: NaiveDate,
    /// Patients over all hospitals; a person at two hospitals counts twice, here and in `combined`.
    pub patients: u64,
    /// Those of them eligible on `as_of`.
    pub eligible_patients: u64,
    /// People who are patients at two hospitals.
    pub patients_at_two_hospitals: u64,
    /// Sums of the hospitals' cells.
    pub combined: Cells,
    /// The hospitals, in order.
    pub hospitals: Vec<HospitalTruth>,
}

/// What is true of one hospital.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HospitalTruth {
    /// Its directory: `hospital-1`, ….
    pub name: String,
    /// Rows of each table, by the name of its file without `.parquet`.
    pub rows: RowsWritten,
    /// Patients in `patient_summary`.
    pub patients: u64,
    /// Those of them eligible on the as-of date under `jp-ngmia`.
    pub eligible_patients: u64,
    /// Counts of eligible patients.
    pub cells: Cells,
}

/// Rows of each table of one hospital.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RowsWritten {
    /// One row per patient.
    pub patient_summary: u64,
    /// Hospital stays.
    pub stay: u64,
    /// Diagnoses.
    pub diagnosis: u64,
    /// Prescriptions.
    pub prescription: u64,
    /// Laboratory results.
    pub lab: u64,
}

impl RowsWritten {
    /// Rows of the event tables: all but `patient_summary`.
    pub fn events(&self) -> u64 {
        self.stay + self.diagnosis + self.prescription + self.lab
    }
}

/// Counts of eligible patients over `patient_summary`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cells {
    /// `diabetes_stage = 'mild' AND complications = 0`, by age band and sex: 15 cells.
    pub mild_without_complications: Vec<AgeSexCount>,
    /// Patients and adverse events by `first_drug`: 3 cells.
    pub by_first_drug: Vec<DrugCount>,
}

/// Patients of one age band and sex.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgeSexCount {
    /// One of [`AGE_BANDS`].
    pub age_band: String,
    /// `female`, `male`, or `None` where the record has none.
    pub sex: Option<String>,
    /// How many patients.
    pub patients: u64,
}

/// Patients who had one drug first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DrugCount {
    /// `A`, `B` or `none`.
    pub first_drug: String,
    /// How many patients.
    pub patients: u64,
    /// How many of them had an adverse event.
    pub adverse_events: u64,
}

impl Truth {
    pub(super) fn new(plan: &Plan, at_two: u64, hospitals: Vec<HospitalTruth>) -> Self {
        let mut combined = Tally::default().cells();
        for hospital in &hospitals {
            combined.add(&hospital.cells);
        }
        Self {
            seed: plan.seed,
            as_of: plan.as_of,
            patients: hospitals.iter().map(|h| h.patients).sum(),
            eligible_patients: hospitals.iter().map(|h| h.eligible_patients).sum(),
            patients_at_two_hospitals: at_two,
            combined,
            hospitals,
        }
    }

    pub(super) fn save(&self, dir: &Path) -> Result<(), GenerateError> {
        let path = dir.join(TRUTH_FILE);
        let text = serde_json::to_string_pretty(self).map_err(|e| GenerateError::io(&path, e.into()))?;
        fs::write(&path, text + "\n").map_err(|e| GenerateError::io(&path, e))
    }

    /// Reads the truth of the network in `dir`.
    ///
    /// # Errors
    /// [`GenerateError::Io`] if `truth.json` is missing (the network may be incomplete) or not a truth.
    pub fn load(dir: &Path) -> Result<Self, GenerateError> {
        let path = dir.join(TRUTH_FILE);
        let text = fs::read_to_string(&path).map_err(|e| GenerateError::io(&path, e))?;
        serde_json::from_str(&text).map_err(|e| GenerateError::io(&path, e.into()))
    }
}

impl Cells {
    /// Adds cells in the same order, which all of them have.
    fn add(&mut self, other: &Self) {
        let ours = self.mild_without_complications.iter_mut();
        for (mine, theirs) in ours.zip(&other.mild_without_complications) {
            mine.patients += theirs.patients;
        }
        for (mine, theirs) in self.by_first_drug.iter_mut().zip(&other.by_first_drug) {
            mine.patients += theirs.patients;
            mine.adverse_events += theirs.adverse_events;
        }
    }
}

/// Counts of one hospital, while its patients are drawn.
#[derive(Default)]
pub(super) struct Tally {
    patients: u64,
    eligible: u64,
    mild: [[u64; SEXES.len()]; AGE_BANDS.len()],
    /// Patients and adverse events.
    drugs: [[u64; 2]; FirstDrug::ALL.len()],
}

impl Tally {
    pub(super) fn count(&mut self, person: &Person, place: &Place, eligible: bool) {
        self.patients += 1;
        if !eligible {
            return;
        }
        self.eligible += 1;
        if person.stage == Stage::Mild && person.complications == 0 {
            let sex = match person.sex {
                Some(Sex::Female) => 0,
                Some(Sex::Male) => 1,
                None => 2,
            };
            self.mild[age_band(person.age)][sex] += 1;
        }
        let drug = match place.first_drug {
            FirstDrug::A => 0,
            FirstDrug::B => 1,
            FirstDrug::None => 2,
        };
        self.drugs[drug][0] += 1;
        self.drugs[drug][1] += u64::from(place.adverse_event);
    }

    fn cells(&self) -> Cells {
        let mut cells = Cells::default();
        for (band, counts) in AGE_BANDS.iter().zip(&self.mild) {
            for (sex, patients) in SEXES.iter().zip(counts) {
                cells.mild_without_complications.push(AgeSexCount {
                    age_band: (*band).to_owned(),
                    sex: sex.map(|sex| sex.as_str().to_owned()),
                    patients: *patients,
                });
            }
        }
        for (drug, [patients, adverse_events]) in FirstDrug::ALL.iter().zip(&self.drugs) {
            cells.by_first_drug.push(DrugCount {
                first_drug: drug.as_str().to_owned(),
                patients: *patients,
                adverse_events: *adverse_events,
            });
        }
        cells
    }

    pub(super) fn into_truth(self, name: String, rows: RowsWritten) -> HospitalTruth {
        HospitalTruth { name, rows, patients: self.patients, eligible_patients: self.eligible, cells: self.cells() }
    }
}
