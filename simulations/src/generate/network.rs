//! Who is a patient where: hospital sizes, case mixes, people at two hospitals, local patient numbers, and
//! how the planned rows fall on patients.
//!
//! Promises: all of it is a function of the plan, computed slot by slot; nothing here grows with patients.
//! A *slot* is a patient's place in the order of one hospital, from 0. The last slots of each hospital are
//! people whose home is the hospital before it (cyclically), so nobody is at three.

use chrono::NaiveDate;

use super::Plan;
use super::person::Person;
use super::stream::{Purpose, Streams, mix};

/// How the patients of a hospital differ from those of the next.
#[derive(Debug, Clone, Copy)]
pub(super) struct CaseMix {
    /// Weights of the five age bands.
    pub(super) age_weights: [u32; 5],
    /// Diabetes relative to the network, in percent.
    pub(super) diabetes_percent: u32,
    /// Adverse events relative to the network, in percent.
    pub(super) adverse_percent: u32,
}

/// Relative sizes, doubled to be whole: 5, 3, 2, 1.5 and 1, repeating over hospitals.
const SIZES: [u64; 5] = [10, 6, 4, 3, 2];

const CASE_MIXES: [CaseMix; 5] = [
    mix_of([10, 18, 30, 20, 22], 100, 100),
    mix_of([5, 12, 27, 25, 31], 115, 110),
    mix_of([18, 22, 28, 16, 16], 85, 90),
    mix_of([6, 20, 38, 19, 17], 110, 85),
    mix_of([3, 9, 22, 26, 40], 95, 120),
];

/// JIS X 0401 codes of the prefectures the hospitals stand in, repeating.
const PREFECTURES: [u8; 10] = [13, 27, 23, 1, 40, 4, 34, 14, 47, 17];

/// People at two hospitals, per hundred people.
const AT_TWO_PERCENT: u64 = 3;

/// Local patient numbers are 18 digits, beginning 7345.
const PATIENT_ID_BASE: i64 = 734_500_000_000_000_000;
/// The greatest prime below 10^14, the room below the base.
const PATIENT_ID_PRIME: u64 = 99_999_999_999_973;

const fn mix_of(age_weights: [u32; 5], diabetes_percent: u32, adverse_percent: u32) -> CaseMix {
    CaseMix { age_weights, diabetes_percent, adverse_percent }
}

struct Hospital {
    patients: u64,
    /// How many of them, the last ones, have their home at the hospital before.
    from_before: u64,
    streams: Streams,
    id_step: u64,
    id_offset: u64,
}

/// The network of one plan.
pub(super) struct Network {
    hospitals: Vec<Hospital>,
    rows: u64,
    seed: u64,
    as_of: NaiveDate,
}

impl Network {
    /// Lays out a plan that was checked.
    pub(super) fn lay_out(plan: &Plan) -> Self {
        let sizes = sizes(plan.hospitals, plan.patients);
        let mut home_and_away = 0;
        let hospitals = (0..plan.hospitals)
            .map(|index| {
                let patients = sizes[index];
                let visited = home_and_away;
                home_and_away += patients;
                let from_before = if plan.hospitals == 1 {
                    0
                } else {
                    // At most half of either hospital, so that nobody is counted at three.
                    let neighbour = sizes[before(index, plan.hospitals)];
                    (at_two(home_and_away) - at_two(visited)).min(patients.min(neighbour) / 2)
                };
                let streams = Streams::new(plan.seed, index);
                let mut own = streams.own();
                Hospital {
                    patients,
                    from_before,
                    id_step: PATIENT_ID_PRIME / 10 + own.bits() % (PATIENT_ID_PRIME / 2),
                    id_offset: own.bits() % PATIENT_ID_PRIME,
                    streams,
                }
            })
            .collect();
        Self { hospitals, rows: plan.rows, seed: plan.seed, as_of: plan.as_of }
    }

    pub(super) fn as_of(&self) -> NaiveDate {
        self.as_of
    }

    /// Patients of one hospital, those at two hospitals included.
    pub(super) fn patients(&self, hospital: usize) -> u64 {
        self.hospitals[hospital].patients
    }

    /// People who are patients at two hospitals.
    pub(super) fn at_two_hospitals(&self) -> u64 {
        self.hospitals.iter().map(|h| h.from_before).sum()
    }

    pub(super) fn case_mix(&self, hospital: usize) -> CaseMix {
        CASE_MIXES[hospital % CASE_MIXES.len()]
    }

    /// The prefecture that the hospital stands in.
    pub(super) fn prefecture(&self, hospital: usize) -> u8 {
        PREFECTURES[hospital % PREFECTURES.len()]
    }

    pub(super) fn streams(&self, hospital: usize) -> &Streams {
        &self.hospitals[hospital].streams
    }

    /// The home hospital and slot of the person in a slot.
    pub(super) fn home(&self, hospital: usize, slot: u64) -> (usize, u64) {
        let at = &self.hospitals[hospital];
        match slot.checked_sub(at.patients - at.from_before) {
            Some(visitor) => (before(hospital, self.hospitals.len()), visitor),
            None => (hospital, slot),
        }
    }

    /// The person in a slot: the same one from either hospital.
    pub(super) fn person(&self, hospital: usize, slot: u64) -> Person {
        let (home, home_slot) = self.home(hospital, slot);
        Person::draw(self, home, home_slot)
    }

    /// The number the hospital knows a patient by: unique there, neither contiguous nor ordered.
    pub(super) fn patient_id(&self, hospital: usize, slot: u64) -> i64 {
        let at = &self.hospitals[hospital];
        let step = u128::from(at.id_step) * u128::from(slot) + u128::from(at.id_offset);
        PATIENT_ID_BASE + (step % u128::from(PATIENT_ID_PRIME)) as i64
    }

    /// A number unique over the network for the `count`-th thing of a hospital; as `i64`, half are negative.
    pub(super) fn serial(&self, hospital: usize, count: u64) -> u64 {
        mix((((hospital as u64) << 48) | count) ^ mix(self.seed))
    }

    /// Shares of the planned rows, to be taken hospital by hospital, slot by slot.
    pub(super) fn row_shares(&self) -> RowShares<'_> {
        let mut all = 0;
        for (index, hospital) in self.hospitals.iter().enumerate() {
            for slot in 0..hospital.patients {
                all += self.volume(index, slot);
            }
        }
        RowShares { network: self, all, so_far: 0, given: 0 }
    }

    /// How much a patient is seen, relative to others: mostly little, for a few very much.
    fn volume(&self, hospital: usize, slot: u64) -> u64 {
        let mut draw = self.hospitals[hospital].streams.open(Purpose::Volume, slot);
        let (low, high) = match draw.below(100) {
            0..55 => (1, 4),
            55..85 => (4, 15),
            85..97 => (15, 60),
            _ => (60, 400),
        };
        draw.between(low, high) as u64
    }
}

/// Divides the planned rows over patients in proportion to their volume, to the last row.
pub(super) struct RowShares<'a> {
    network: &'a Network,
    all: u64,
    so_far: u64,
    given: u64,
}

impl RowShares<'_> {
    /// Event rows of the next patient.
    pub(super) fn next_patient(&mut self, hospital: usize, slot: u64) -> u64 {
        self.so_far += self.network.volume(hospital, slot);
        let due = u128::from(self.network.rows) * u128::from(self.so_far) / u128::from(self.all);
        let rows = due as u64 - self.given;
        self.given += rows;
        rows
    }
}

/// The hospital before this one, the last being before the first.
fn before(index: usize, hospitals: usize) -> usize {
    (index + hospitals - 1) % hospitals
}

/// Of so many patients, how many are somebody's second hospital.
fn at_two(patients: u64) -> u64 {
    patients * AT_TWO_PERCENT / (100 + AT_TWO_PERCENT)
}

/// One patient each, the rest by size, to the last patient.
fn sizes(hospitals: usize, patients: u64) -> Vec<u64> {
    let weight_to = |count: usize| -> u64 { (0..count).map(|i| SIZES[i % SIZES.len()]).sum() };
    let spread = patients - hospitals as u64;
    let all = weight_to(hospitals);
    (0..hospitals).map(|i| 1 + spread * weight_to(i + 1) / all - spread * weight_to(i) / all).collect()
}
