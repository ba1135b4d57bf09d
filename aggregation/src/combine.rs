//! Integers of several hospitals become one table of integers.
//!
//! A release is believed to be of the plan only if its header says exactly what this party's own analysis of the
//! signed SQL says: plan digest, units and noise. Numbers add in checked i128. The names of a private key are those that some
//! hospital let out; a hospital that did not let a name out adds nothing to it, and the table says how many did. A row of exact
//! releases is shown only where every hospital shows it.

use std::collections::BTreeMap;

use sekisho_protocol::digest::Digest;

use crate::{
    domain::KeyValue,
    exact::{self, Slack},
    plan::{Part, PrivatePlan},
    release::{PartHeader, Release, part_header},
};

/// Sums over hospitals.
#[derive(Clone)]
pub struct Combined {
    pub(crate) parts: Vec<CombinedPart>,
}

/// Sums over hospitals of one part: numbers in lattice units, and how many hospitals' noise is in them.
#[derive(Clone)]
pub(crate) struct CombinedPart {
    /// With how many hospitals let each out; a single NULL where no key is private.
    pub(crate) names: Vec<(Option<KeyValue>, u32)>,
    pub(crate) measures: Vec<Vec<i128>>,
    /// How many hospitals answered.
    pub(crate) hospitals: u32,
    /// Of exact releases; none of noised ones.
    pub(crate) exact: Option<CombinedExact>,
}

/// What is known of sums of exact numbers.
#[derive(Clone)]
pub(crate) struct CombinedExact {
    /// Of each row whether some hospital hides it; all of them where none answered.
    pub(crate) hidden: Vec<bool>,
    /// For each number how far rounding may have moved it.
    pub(crate) slack: Vec<Vec<Slack>>,
}

/// One hospital's numbers of one part.
pub(crate) struct Own<'a> {
    pub(crate) header: &'a PartHeader,
    pub(crate) numbers: &'a [Vec<i128>],
    /// To which multiple exact counts are rounded.
    pub(crate) rounding: u32,
}

impl Combined {
    /// With the names of `all`, in whose sums this one's are: a name that was not let out here has zeros and no noise.
    #[must_use]
    pub fn aligned(mut self, plan: &PrivatePlan, all: &Self) -> Self {
        for ((part, own), all) in plan.parts().iter().zip(&mut self.parts).zip(&all.parts) {
            if part.names.is_none() {
                continue;
            }
            let places: BTreeMap<_, _> =
                own.names.iter().enumerate().map(|(i, (name, count))| (name, (i, *count))).collect();
            let names: Vec<_> = all.names.iter().map(|(name, _)| (name.clone(), places.get(name).copied())).collect();
            for (measure, numbers) in part.measures().iter().zip(&mut own.measures) {
                let stride = part.numbers(measure, 1);
                let zeros = vec![0; stride];
                if part.has_names(measure.over) {
                    let of = |place: &Option<(usize, u32)>| {
                        place.and_then(|(i, _)| numbers.get(i * stride..(i + 1) * stride)).unwrap_or(&zeros)
                    };
                    *numbers = names.iter().map(|(_, place)| of(place)).collect::<Vec<_>>().concat();
                }
            }
            own.names = names.into_iter().map(|(name, place)| (name, place.map_or(0, |(_, count)| count))).collect();
        }
        self
    }
}

impl<'a> Own<'a> {
    fn of(release: &'a Release, place: usize) -> Option<Self> {
        let (header, numbers) = (release.header().parts.get(place)?, release.parts().get(place)?);
        let rounding = release.header().exact.as_ref().map_or(1, |exact| exact.rules.rounding);
        Some(Self { header, numbers, rounding })
    }
}

/// Why a release does not belong to the round.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CombineError {
    /// It answers another question.
    #[error("the release answers another permit, query or run")]
    OtherQuestion,
    /// It was made by another plan, or its measures are others.
    #[error("the release was made by another plan: software or schema differ")]
    OtherPlan,
    /// The sums are too large.
    #[error("the sums over hospitals are too large")]
    Overflow,
}

/// Checks that `release` is one of `plan` for this permit, query and run.
///
/// # Errors
/// When it is not.
pub fn check(
    plan: &PrivatePlan,
    permit: Digest,
    query_key: Digest,
    run: u32,
    release: &Release,
) -> Result<(), CombineError> {
    let header = release.header();
    if header.permit != permit || header.query_key != query_key || header.run != run {
        return Err(CombineError::OtherQuestion);
    }
    let same = header.plan == plan.digest()
        && header.micro_rho == plan.micro_rho()
        && header.atto_delta == plan.atto_delta()
        && header.parts.len() == plan.parts().len()
        && plan.parts().iter().zip(&header.parts).all(|(part, header)| is_of(part, header))
        && exact::is_of(plan, release);
    // Reading it made sure that there are as many numbers as the header says.
    if same { Ok(()) } else { Err(CombineError::OtherPlan) }
}

/// Whether a header says what this party's own plan of the part says, names aside.
fn is_of(part: &Part, header: &PartHeader) -> bool {
    let names_fit = match (&header.names, part.names) {
        (Some(names), Some(_)) => {
            let kind = part.keys().iter().find(|k| k.private).map(|k| k.image.kind);
            names.windows(2).all(|pair| pair[0] < pair[1])
                && names.iter().flatten().all(|name| Some(name.kind()) == kind)
        }
        (None, None) => true,
        (Some(_), None) | (None, Some(_)) => false,
    };
    // Which rows are hidden is looked at with their numbers.
    let expected =
        part_header(part, header.names.clone()).map(|own| PartHeader { hidden: header.hidden.clone(), ..own });
    names_fit && expected.as_ref() == Some(header)
}

/// Adds checked releases. With none, every cell is 0 and has no noise: callers show such a table as missing.
///
/// # Errors
/// [`CombineError::Overflow`] when a sum leaves i128, or a release was not checked.
pub fn combine(plan: &PrivatePlan, releases: &[&Release]) -> Result<Combined, CombineError> {
    let of_part = |(place, part): (usize, &Part)| {
        let own = releases.iter().filter_map(|release| Own::of(release, place));
        combine_part(part, &own.collect::<Vec<_>>())
    };
    Ok(Combined { parts: plan.parts().iter().enumerate().map(of_part).collect::<Result<_, _>>()? })
}

/// Adds the numbers of hospitals.
pub(crate) fn combine_part(part: &Part, all: &[Own]) -> Result<CombinedPart, CombineError> {
    let nameless = vec![None];
    let own: Vec<_> = all.iter().map(|own| (own.header.names.as_ref().unwrap_or(&nameless), own.numbers)).collect();
    let mut names: BTreeMap<&Option<KeyValue>, u32> = BTreeMap::new();
    if part.names.is_none() {
        names.insert(&None, 0);
    }
    for name in own.iter().flat_map(|(names, _)| names.iter()) {
        *names.entry(name).or_default() += 1;
    }
    let places: BTreeMap<&Option<KeyValue>, usize> = names.keys().enumerate().map(|(i, name)| (*name, i)).collect();
    let mut measures: Vec<Vec<i128>> = part.measures().iter().map(|m| vec![0; part.released(m, names.len())]).collect();
    for (own_names, own_measures) in &own {
        for ((total, numbers), measure) in measures.iter_mut().zip(*own_measures).zip(part.measures()) {
            let (stride, named) = (part.released(measure, 1), part.has_names(measure.over));
            for (i, number) in numbers.iter().enumerate() {
                let name = if named { own_names.get(i / stride).and_then(|n| places.get(n)).copied() } else { Some(0) };
                let place = name.ok_or(CombineError::Overflow)? * stride + i % stride;
                let total = total.get_mut(place).ok_or(CombineError::Overflow)?;
                *total = total.checked_add(*number).ok_or(CombineError::Overflow)?;
            }
        }
    }
    let hospitals = u32::try_from(own.len()).map_err(|_| CombineError::Overflow)?;
    let names = names.into_iter().map(|(n, count)| (n.clone(), count)).collect();
    let exact = part.exact.then(|| exact::combined(part, all, &mut measures));
    Ok(CombinedPart { names, measures, hospitals, exact })
}
