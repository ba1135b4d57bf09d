//! What happens to patients: stays, diagnoses, prescriptions and laboratory results, row by row.
//!
//! Promises: at most [`IN_TURN`] patients are held at once, whatever the number of rows; each gives one row
//! in turn, so that a patient's rows lie scattered over a file. A patient's rows depend on their own stream
//! only. No event is before birth, after death or after the as-of date; stays may overlap.

use chrono::NaiveDate;

use super::GenerateError;
use super::codes::{DIABETIC_DRUGS, DIABETIC_ICD10, DIABETIC_STAYS, DRUGS, ICD10, LABS, STAYS};
use super::codes::{Drug, LabTest, Ranked};
use super::network::Network;
use super::person::{Person, Stage};
use super::stream::{Draw, Purpose};
use super::tables::{Diagnosis, Lab, Prescription, Stay, Tables};

/// Patients whose rows are interleaved.
const IN_TURN: usize = 512;

/// The share of rows up to and including each table, in thousandths: stay, diagnosis, prescription, lab.
const SHARES: [u64; 4] = [60, 250, 550, 1000];

/// Sources reach back five years.
const DAYS_BACK: i64 = 1826;

/// Laboratory results without a value, per 10,000.
const NO_VALUE: u32 = 250;

/// A patient with rows left to give.
struct Visitor {
    patient_id: i64,
    stage: Stage,
    /// The as-of date or the day of death, in days since 1970-01-01.
    last_day: i32,
    days_lived: i64,
    died_here: bool,
    /// Rows left, by table.
    left: [u64; 4],
    /// Whether any diagnosis or prescription was given yet.
    diagnosed: bool,
    prescribed: bool,
    draw: Draw,
}

/// The patients of one hospital whose rows are being written.
pub(super) struct Visits<'a> {
    network: &'a Network,
    hospital: usize,
    present: Vec<Visitor>,
    turn: usize,
    stays: u64,
    icd10: Ranked,
    drugs: Ranked,
    labs: Ranked,
}

impl<'a> Visits<'a> {
    pub(super) fn new(network: &'a Network, hospital: usize) -> Self {
        Self {
            network,
            hospital,
            present: Vec::with_capacity(IN_TURN),
            turn: 0,
            stays: 0,
            icd10: Ranked::new(ICD10.len()),
            drugs: Ranked::new(DRUGS.len()),
            labs: Ranked::new(LABS.len()),
        }
    }

    /// Takes in a patient with so many rows to give; writes rows until there is room for the next.
    pub(super) fn admit(
        &mut self,
        slot: u64,
        patient_id: i64,
        person: &Person,
        rows: u64,
        tables: &mut Tables<'_>,
    ) -> Result<(), GenerateError> {
        if rows == 0 {
            return Ok(());
        }
        let streams = self.network.streams(self.hospital);
        let mut draw = streams.open(Purpose::Events, slot);
        let left = divide(rows, u64::from(draw.below(1000)));
        let last_day = person.died_on.unwrap_or(self.network.as_of());
        let at_home = self.network.home(self.hospital, slot).0 == self.hospital;
        self.present.push(Visitor {
            patient_id,
            stage: person.stage,
            last_day: NaiveDate::to_epoch_days(&last_day),
            days_lived: person.days_lived,
            died_here: at_home && person.died_on.is_some(),
            left,
            diagnosed: false,
            prescribed: false,
            draw,
        });
        while self.present.len() >= IN_TURN {
            self.one_row(tables)?;
        }
        Ok(())
    }

    /// Writes all rows left.
    pub(super) fn finish(mut self, tables: &mut Tables<'_>) -> Result<(), GenerateError> {
        while !self.present.is_empty() {
            self.one_row(tables)?;
        }
        Ok(())
    }

    /// Writes one row of the patient whose turn it is.
    fn one_row(&mut self, tables: &mut Tables<'_>) -> Result<(), GenerateError> {
        if self.turn >= self.present.len() {
            self.turn = 0;
        }
        let visitor = &mut self.present[self.turn];
        let table = visitor.left.iter().position(|left| *left > 0);
        if let Some(table) = table {
            visitor.left[table] -= 1;
        }
        match table {
            Some(0) => {
                let stay_id = self.network.serial(self.hospital, self.stays) as i64;
                self.stays += 1;
                tables.stay(visitor.stay(stay_id))?;
            }
            Some(1) => tables.diagnosis(visitor.diagnosis(&self.icd10))?,
            Some(2) => tables.prescription(visitor.prescription(&self.drugs))?,
            Some(_) => tables.lab(visitor.lab(&self.labs))?,
            None => {}
        }
        if visitor.left == [0; 4] {
            self.present.swap_remove(self.turn);
        } else {
            self.turn += 1;
        }
        Ok(())
    }
}

impl Visitor {
    fn diabetic(&self) -> bool {
        self.stage != Stage::None
    }

    /// A day within the sources' reach and the patient's life.
    fn day(&mut self) -> i32 {
        let back = self.days_lived.min(DAYS_BACK);
        self.last_day - self.draw.between(0, back) as i32
    }

    fn stay(&mut self, stay_id: i64) -> Stay {
        let (discharged, outcome) = if std::mem::take(&mut self.died_here) {
            (self.last_day, "died")
        } else if self.draw.chance(900) {
            (self.day(), "transfer")
        } else {
            (self.day(), "home")
        };
        let (low, high) = match self.draw.below(100) {
            0..35 => (1, 3),
            35..70 => (4, 10),
            70..90 => (11, 30),
            90..98 => (31, 90),
            _ => (91, 180),
        };
        // Days count both ends, and nobody is admitted before birth.
        let age_then = self.days_lived - i64::from(self.last_day - discharged);
        let days = self.draw.between(low, high).min(age_then + 1);
        let (dpc, main_icd10) = if self.diabetic() && self.draw.chance(3500) {
            self.draw.one_of(DIABETIC_STAYS)
        } else {
            self.draw.one_of(STAYS)
        };
        Stay {
            patient_id: self.patient_id,
            stay_id,
            admitted: discharged - (days - 1) as i32,
            discharged,
            days,
            dpc,
            main_icd10,
            outcome,
        }
    }

    fn diagnosis(&mut self, icd10: &Ranked) -> Diagnosis {
        let first = !std::mem::replace(&mut self.diagnosed, true);
        let of_diabetes = self.diabetic() && (first || self.draw.chance(3000));
        Diagnosis {
            patient_id: self.patient_id,
            icd10: if of_diabetes { self.draw.one_of(DIABETIC_ICD10) } else { ICD10[icd10.pick(&mut self.draw)] },
            on_date: self.day(),
        }
    }

    fn prescription(&mut self, drugs: &Ranked) -> Prescription {
        let first = !std::mem::replace(&mut self.prescribed, true);
        let for_diabetes = self.diabetic() && (first || self.draw.chance(4000));
        let Drug { atc, yj, daily_hundredths } =
            if for_diabetes { self.draw.one_of(DIABETIC_DRUGS) } else { DRUGS[drugs.pick(&mut self.draw)] };
        let days = self.draw.one_of(&[7, 14, 28, 28, 30, 30, 56, 60, 90]);
        Prescription {
            patient_id: self.patient_id,
            atc,
            yj,
            on_date: self.day(),
            days,
            amount_hundredths: days * daily_hundredths,
        }
    }

    fn lab(&mut self, labs: &Ranked) -> Lab {
        let LabTest { jlac10, mean, sd, decimals, by_stage } = LABS[labs.pick(&mut self.draw)];
        let (more, wider) = match self.stage {
            Stage::None => (0, 0),
            Stage::Mild => by_stage[0],
            Stage::Moderate => by_stage[1],
            Stage::Severe => by_stage[2],
        };
        let units = self.draw.bell(mean + more, sd + wider).max(1);
        let value = units as f64 / [1.0, 10.0, 100.0][decimals];
        Lab {
            patient_id: self.patient_id,
            jlac10,
            on_date: self.day(),
            value: (!self.draw.chance(NO_VALUE)).then_some(value),
        }
    }
}

/// Divides rows over the tables by [`SHARES`], exactly; the phase (0 to 999) makes it fair to small counts.
fn divide(rows: u64, phase: u64) -> [u64; 4] {
    let mut given = 0;
    SHARES.map(|share| {
        let due = (rows * share + phase) / 1000;
        let here = due - given;
        given = due;
        here
    })
}

#[cfg(test)]
mod tests {
    use super::super::stream::Streams;
    use super::*;

    #[test]
    fn no_stay_of_a_newborn_begins_before_birth() {
        let mut newborn = Visitor {
            patient_id: 1,
            stage: Stage::None,
            last_day: 20_000,
            days_lived: 3,
            died_here: false,
            left: [0; 4],
            diagnosed: false,
            prescribed: false,
            draw: Streams::new(1, 0).open(Purpose::Events, 0),
        };
        let stays: Vec<Stay> = (0..1000).map(|id| newborn.stay(id)).collect();
        assert!(stays.iter().all(|stay| stay.admitted >= 19_997 && stay.days >= 1));
        assert!(stays.iter().any(|stay| stay.admitted == 19_997 && stay.days == 4));
    }

    #[test]
    fn rows_are_divided_to_the_last_whatever_the_phase() {
        for rows in [1, 2, 7, 1000, 99_999_999] {
            for phase in [0, 1, 500, 999] {
                assert_eq!(divide(rows, phase).iter().sum::<u64>(), rows);
            }
        }
        let single = (0..1000).map(|phase| divide(1, phase));
        let sums = single.fold([0; 4], |sums, one| std::array::from_fn(|i| sums[i] + one[i]));
        assert_eq!(sums, [60, 190, 300, 450]);
    }
}
