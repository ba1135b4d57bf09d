//! A person, and what one hospital did and wrote about them.
//!
//! Promises: a [`Person`] is the same from every hospital; a [`Place`] is one hospital's own. Diabetes
//! rises with age; adverse events come in about 6 % under drug A, 3 % under B and 1 % under neither,
//! scaled by the hospital's case mix.

use chrono::{Days, NaiveDate};

use super::network::Network;
use super::register::Entry;
use super::stream::{Draw, Purpose, mix};
use super::truth::age_band;

/// Recorded sex; absent in some records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sex {
    Female,
    Male,
}

impl Sex {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Female => "female",
            Self::Male => "male",
        }
    }
}

/// Stage of diabetes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    None,
    Mild,
    Moderate,
    Severe,
}

impl Stage {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Mild => "mild",
            Self::Moderate => "moderate",
            Self::Severe => "severe",
        }
    }
}

/// The drug under study that a patient had first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FirstDrug {
    A,
    B,
    None,
}

impl FirstDrug {
    pub(super) const ALL: [Self; 3] = [Self::A, Self::B, Self::None];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::A => "A",
            Self::B => "B",
            Self::None => "none",
        }
    }
}

/// Who somebody is, wherever they are treated.
#[derive(Debug, Clone)]
pub(super) struct Person {
    /// Completed years on the as-of date, or on the day of death.
    pub(super) age: i64,
    /// Days from birth to that date.
    pub(super) days_lived: i64,
    pub(super) sex: Option<Sex>,
    /// JIS X 0401, 1 to 47.
    pub(super) prefecture: u8,
    pub(super) stage: Stage,
    /// Complications of diabetes, 0 to 5.
    pub(super) complications: i64,
    /// In units of 100 g.
    pub(super) weight_hectograms: i64,
    pub(super) died_on: Option<NaiveDate>,
    /// Unique to the person; the planted identifiers are made of it.
    number: u64,
}

/// Diabetes per 10,000 people, by age band.
const DIABETES: [u32; 5] = [100, 500, 2000, 3000, 3300];
/// Weights of 0 to 5 complications when mild, moderate, severe.
const COMPLICATIONS: [[u32; 6]; 3] = [[65, 22, 9, 3, 1, 0], [35, 30, 18, 10, 5, 2], [12, 24, 26, 20, 12, 6]];

impl Person {
    /// Draws the person whose home is this hospital and slot.
    pub(super) fn draw(network: &Network, home: usize, slot: u64) -> Self {
        let mix_here = network.case_mix(home);
        let mut draw = network.streams(home).open(Purpose::Person, slot);
        let age = draw_age(&mut draw, &mix_here.age_weights);
        let sex = match draw.below(1000) {
            0..5 => None,
            5..515 => Some(Sex::Female),
            _ => Some(Sex::Male),
        };
        let diabetes = DIABETES[age_band(age)] * mix_here.diabetes_percent / 100;
        let (stage, complications) = draw_diabetes(&mut draw, diabetes);
        let prefecture = if draw.chance(8500) { network.prefecture(home) } else { draw.between(1, 47) as u8 };
        let died_on = draw.chance(100).then(|| network.as_of() - Days::new(draw.between(1, 1000) as u64));
        Self {
            age,
            days_lived: age * 365 + draw.between(0, 364),
            sex,
            prefecture,
            stage,
            complications,
            weight_hectograms: draw_weight(&mut draw, age),
            died_on,
            // Mixed once more, since stays are numbered from the same serials.
            number: mix(network.serial(home, slot)),
        }
    }

    /// A planted name: begins `PLANT-`, unique to the person, must never leave the hospital.
    pub(super) fn name(&self) -> String {
        format!("PLANT-患者-{:016x}", self.number)
    }

    /// A planted insurance number, likewise.
    pub(super) fn insurance_no(&self) -> String {
        format!("PLANT-INS-{:020}", mix(!self.number))
    }
}

fn draw_age(draw: &mut Draw, weights: &[u32; 5]) -> i64 {
    match draw.weighted(weights) {
        0 => draw.between(0, 17),
        1 => draw.between(18, 39),
        2 => draw.between(40, 64),
        3 => draw.between(65, 74),
        // The least of three: few are very old.
        _ => (0..3).map(|_| draw.between(75, 104)).min().unwrap_or(75),
    }
}

fn draw_diabetes(draw: &mut Draw, per_myriad: u32) -> (Stage, i64) {
    if !draw.chance(per_myriad) {
        return (Stage::None, 0);
    }
    let (stage, weights) = match draw.weighted(&[55, 30, 15]) {
        0 => (Stage::Mild, &COMPLICATIONS[0]),
        1 => (Stage::Moderate, &COMPLICATIONS[1]),
        _ => (Stage::Severe, &COMPLICATIONS[2]),
    };
    (stage, draw.weighted(weights) as i64)
}

fn draw_weight(draw: &mut Draw, age: i64) -> i64 {
    let (mean, sd) = match age {
        0..18 => (35 + age * 32, 20 + age * 3),
        18..65 => (630, 105),
        _ => (570, 95),
    };
    draw.bell(mean, sd).clamp(25, 1800)
}

/// What one hospital did and wrote about a person.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) first_drug: FirstDrug,
    pub(super) adverse_event: bool,
    /// In units of 100 g; absent where never measured.
    pub(super) weight_hectograms: Option<i64>,
    /// The line in the hospital's patient register; absent where the patient was never notified.
    pub(super) entry: Option<Entry>,
}

/// Patients in the sources but not in the register, per 10,000.
const NEVER_NOTIFIED: u32 = 50;

impl Place {
    /// Draws what the hospital did for the person in this slot.
    pub(super) fn draw(network: &Network, hospital: usize, slot: u64, person: &Person) -> Self {
        let mut draw = network.streams(hospital).open(Purpose::Place, slot);
        let weights = match person.stage {
            Stage::None => [10, 10, 80],
            Stage::Mild => [40, 35, 25],
            Stage::Moderate | Stage::Severe => [48, 45, 7],
        };
        let first_drug = FirstDrug::ALL[draw.weighted(&weights)];
        let rate = match first_drug {
            FirstDrug::A => 600,
            FirstDrug::B => 300,
            FirstDrug::None => 100,
        };
        let adverse_event = draw.chance(rate * network.case_mix(hospital).adverse_percent / 100);
        let weighed = !draw.chance(200);
        let notified = !draw.chance(NEVER_NOTIFIED);
        let entry = notified.then(|| Entry::draw(&mut draw, network.as_of(), person.died_on));
        Self { first_drug, adverse_event, weight_hectograms: weighed.then_some(person.weight_hectograms), entry }
    }
}
