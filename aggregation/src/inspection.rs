//! A release that is made again from the exact cells and the same seed, for an inspector on the hospital's own
//! premises.
//!
//! An [`Inspection`] compares inside: [`Inspection::verdict`] says whether header and numbers are those that were
//! stored, and nothing of the data. Exact numbers and noise are seen by a [`Console`] alone, which the node's command
//! for an inspector's screen implements. An inspection is no release: it cannot be printed, cloned, serialised or
//! sent, and what it made again is dropped with it. [`Release::make`] stays the only door out.

use rand::{CryptoRng, RngCore};

use crate::{
    domain::KeyValue,
    fold::{RawCells, Read},
    plan::{CellKey, Part, PrivatePlan, Quantity},
    release::Release,
    reservation::Reservation,
};

/// Exact cells beside the release that was stored.
pub struct Inspection {
    plan: PrivatePlan,
    parts: Vec<Inspected>,
    /// Of each part, what was clamped in it.
    clamped: Vec<Vec<Clamped>>,
    again: Release,
    stored: Release,
}

/// How often a value was clamped, in lattice units of a row.
struct Clamped {
    what: String,
    exact: i128,
    unit: i128,
}

/// One part's exact cells.
struct Inspected {
    names: Vec<Option<KeyValue>>,
    measures: Vec<Vec<i128>>,
    read: Read,
}

/// Whether a release was made again as it was stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// What it says of itself: plan, names of private keys, noise, nonce.
    pub header: bool,
    /// Every number.
    pub numbers: bool,
}

/// A measure, before its numbers.
pub struct ShownMeasure<'a> {
    /// Which part, from 0.
    pub part: usize,
    /// What it is, in words.
    pub name: &'a str,
    /// How many lattice units make one row, one patient, or a value of 1.
    pub unit: i128,
}

/// One number in lattice units: `exact` and `noise` together are what the seed gives.
pub struct ShownNumber {
    /// The group keys of its cell; none where there are none.
    pub cell: Vec<CellKey>,
    /// Its place in the cell, where a cell has several numbers: a node of a histogram.
    pub node: Option<usize>,
    /// The exact number.
    pub exact: i128,
    /// What noise added to it.
    pub noise: i128,
    /// What was stored as released; none where the stored release has no such number.
    pub released: Option<i128>,
}

/// The screen of an inspector: the one place that exact numbers go to.
pub trait Console {
    /// What was read for the part at `part`, and how many names of its private key were kept back.
    fn read(&mut self, part: usize, read: &Read, kept_back: usize);
    /// How many rows, by their weights, have a value that was clamped, where that was looked at: `exact / unit` of them.
    fn clamped(&mut self, what: &str, exact: i128, unit: i128);
    /// A measure; its numbers follow.
    fn measure(&mut self, measure: &ShownMeasure<'_>);
    /// A number of the measure before it; no more of them are wanted when it returns false.
    fn number(&mut self, number: &ShownNumber) -> bool;
}

impl Inspection {
    /// Makes a release again from `raw` and `rng`, and holds it beside `stored`.
    ///
    /// `rng` must be the generator of the stored release, from its first word. Returns `None` when `raw` or `reservation` belong to
    /// another plan, or no noise can be made.
    pub fn of<R: RngCore + CryptoRng, T>(
        plan: &PrivatePlan,
        raw: RawCells,
        reservation: &Reservation<T>,
        stored: Release,
        rng: &mut R,
    ) -> Option<Self> {
        let copy = |part: &crate::fold::RawPart| (part.names.clone(), part.measures.clone());
        let exact: Vec<_> = raw.parts.iter().map(copy).collect();
        let mut raw = raw;
        let reads: Vec<Read> = raw.parts.iter_mut().map(|part| std::mem::take(&mut part.read)).collect();
        let (as_of, synthetic) = (stored.header().as_of, stored.header().synthetic);
        let again = Release::make(plan, raw, reservation, as_of, synthetic, rng)?;
        let parts = exact.into_iter().zip(reads);
        let parts = parts.map(|((names, measures), read)| Inspected { names, measures, read }).collect();
        Some(Self { plan: plan.clone(), parts, clamped: Vec::new(), again, stored })
    }

    /// With how often values were clamped: `raw` is of the same rows under `biting`, the same question that measures this too.
    ///
    /// Returns `None` when the two do not belong together.
    pub fn with_clamped(mut self, biting: &PrivatePlan, raw: &RawCells) -> Option<Self> {
        if biting.parts().len() != self.parts.len() || raw.parts.len() != self.parts.len() {
            return None;
        }
        for (part, raw) in biting.parts().iter().zip(&raw.parts) {
            let mut clamped = Vec::new();
            for (place, what) in &part.bites {
                let (measure, numbers) = (part.measures().get(*place)?, raw.measures.get(*place)?);
                if matches!(measure.quantity, Quantity::Present { .. }) {
                    let exact = numbers.iter().try_fold(0_i128, |sum, number| sum.checked_add(*number))?;
                    clamped.push(Clamped { what: what.clone(), exact, unit: part.unit(measure) });
                }
            }
            self.clamped.push(clamped);
        }
        Some(self)
    }

    /// Whether the release was made again as it was stored.
    pub fn verdict(&self) -> Verdict {
        Verdict {
            header: self.again.header() == self.stored.header(),
            numbers: self.again.parts() == self.stored.parts(),
        }
    }

    /// Shows exact numbers, noise and released numbers on an inspector's screen.
    pub fn show(&self, console: &mut dyn Console) {
        for (place, (part, inspected)) in self.plan.parts().iter().zip(&self.parts).enumerate() {
            let let_out = self.again.header().parts.get(place).and_then(|header| header.names.as_deref());
            let kept_back = let_out.map_or(0, |names| inspected.names.len().saturating_sub(names.len()));
            console.read(place, &inspected.read, kept_back);
            for Clamped { what, exact, unit } in self.clamped.get(place).into_iter().flatten() {
                console.clamped(what, *exact, *unit);
            }
            for i in 0..part.measures().len() {
                self.show_measure(place, part, i, let_out.unwrap_or_default(), console);
            }
        }
    }

    fn show_measure(
        &self,
        place: usize,
        part: &Part,
        i: usize,
        names: &[Option<KeyValue>],
        console: &mut dyn Console,
    ) -> Option<()> {
        let measure = part.measures().get(i)?;
        let inspected = self.parts.get(place)?;
        let (exact, again) = (inspected.measures.get(i)?, self.again.parts().get(place)?.get(i)?);
        let stored = self.stored.parts().get(place).and_then(|part| part.get(i));
        let name = part.measure_name(measure);
        console.measure(&ShownMeasure { part: place, name: &name, unit: part.unit(measure) });
        // The numbers of one name, or all of them where no name is told apart.
        let (one, width) = (part.numbers(measure, 1).max(1), part.width(measure).max(1));
        for (number, noised) in again.iter().enumerate() {
            let (name, rest) = (names.get(number / one).filter(|_| part.has_names(measure.over)), number % one);
            let of_name = name.map_or(Some(0), |name| inspected.names.iter().position(|known| known == name))?;
            let exact = *exact.get(of_name * one + rest)?;
            let shown = ShownNumber {
                cell: part.cell(measure.over, rest / width, name),
                node: (width > 1).then_some(rest % width),
                exact,
                noise: noised.saturating_sub(exact),
                released: stored.and_then(|numbers| numbers.get(number)).copied(),
            };
            if !console.number(&shown) {
                break;
            }
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static_assertions::assert_not_impl_any!(Inspection: std::fmt::Debug, Clone, serde::Serialize);
    static_assertions::assert_not_impl_any!(ShownNumber: std::fmt::Debug, Clone, serde::Serialize);
}
