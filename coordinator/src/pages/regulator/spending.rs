//! The privacy budget of a study at each hospital over time: what the permits grant, what the hospital set aside, what it charged.
//!
//! Every number is signed: the grant by the committee in a permit, the set-aside share by the hospital in its acceptance, each
//! charge by the hospital in its receipt. Promises: the last point is what [`crate::documents::Documents::budget`] says.
//! Deliberately absent: charges without an answer, which have no receipt here: the hospital may have less left.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, TimeDelta, Utc};
use sekisho_protocol::{
    digest::Digest,
    dsse::Envelope,
    permit::ReleaseKind,
    receipt::Receipt,
    refusal::{Code, Refusal},
};

use crate::use_register::{Parts, PermitPart};

/// The most points of one hospital: with more, those of a day, of two, of four, … become one.
pub const MOST_POINTS: usize = 120;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// This version of the permit came.
    Permit(u32),
    /// The hospital accepted a permit.
    Accepted,
    /// It refused one, or decides still.
    NotAccepted(Code),
    /// It charged for a run.
    Charged(u64),
    /// It released exact numbers, which cost nothing.
    Exact,
    /// So many of these, in one point.
    Several(usize),
}

/// How things stand after an event, in micro-rho.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    /// When.
    pub at: DateTime<Utc>,
    /// What happened.
    pub event: Event,
    /// The most that the study may cost there, by the newest permit.
    pub granted: u64,
    /// What the hospital set aside.
    pub set_aside: u64,
    /// What it charged so far.
    pub spent: u64,
}

impl Point {
    /// What is left of what was set aside.
    pub fn left(&self) -> u64 {
        self.set_aside.saturating_sub(self.spent)
    }
}

/// One hospital's part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spending {
    /// The hospital.
    pub holder: String,
    /// The points, the earliest first; never none.
    pub points: Vec<Point>,
}

/// The budget of the study that `parts` are of, by hospital.
///
/// # Errors
/// When a stored receipt cannot be read.
pub fn spending(parts: &Parts) -> Result<Vec<Spending>, Refusal> {
    let mut events: BTreeMap<String, Vec<Change>> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for PermitPart { permit, acceptances, rounds, .. } in &parts.permits {
        let document = &permit.document;
        for holder in document.holders() {
            let what = What::Permit(document.id.clone(), document.version, document.dp.micro_rho_total.get());
            events.entry(holder).or_default().push(Change { at: permit.put_at, what });
        }
        for said in acceptances {
            let what = What::Answer(permit.digest, said.refused, said.earmark.get());
            events.entry(said.node.clone()).or_default().push(Change { at: said.at, what });
        }
        for release in rounds.iter().flat_map(|round| &round.releases) {
            let (receipt, digest) = Envelope::from_json::<Receipt>(&release.receipt)?.peek::<Receipt>()?;
            if seen.insert(digest) {
                let what = match receipt.release_kind {
                    ReleaseKind::Noised => What::Charge(receipt.micro_rho.get()),
                    ReleaseKind::Aggregated => What::Exact,
                };
                events.entry(release.node.clone()).or_default().push(Change { at: receipt.at, what });
            }
        }
    }
    let of = |(holder, changes)| Spending { holder, points: coarsened(&points(changes), MOST_POINTS) };
    Ok(events.into_iter().map(of).collect())
}

struct Change {
    at: DateTime<Utc>,
    what: What,
}

enum What {
    /// A permit's id and version, and the most that it allows.
    Permit(String, u32, u64),
    /// What a hospital said to a permit, and set aside for it.
    Answer(Digest, Option<Code>, u64),
    Charge(u64),
    Exact,
}

impl What {
    /// The order in which things of the same moment are told.
    fn rank(&self) -> u8 {
        match self {
            Self::Permit(..) => 0,
            Self::Answer(..) => 1,
            Self::Charge(_) | Self::Exact => 2,
        }
    }
}

/// How things stand after each change. Of several permits of a study the largest share counts, as the hospitals have it.
fn points(mut changes: Vec<Change>) -> Vec<Point> {
    changes.sort_by_key(|change| (change.at, change.what.rank()));
    let (mut granted, mut set_aside, mut spent) = (BTreeMap::new(), BTreeMap::new(), 0_u64);
    let largest = |of: &BTreeMap<_, u64>| of.values().copied().max().unwrap_or(0);
    let mut points = Vec::new();
    for Change { at, what } in changes {
        let event = match what {
            What::Permit(id, version, total) => {
                let newest = granted.entry(id).or_insert((0, 0));
                *newest = (*newest).max((version, total));
                Event::Permit(version)
            }
            What::Answer(permit, refused, earmark) => {
                set_aside.insert(permit, earmark);
                refused.map_or(Event::Accepted, Event::NotAccepted)
            }
            What::Charge(micro_rho) => {
                spent = spent.saturating_add(micro_rho);
                Event::Charged(micro_rho)
            }
            What::Exact => Event::Exact,
        };
        let granted = granted.values().map(|(_, total)| *total).max().unwrap_or(0);
        points.push(Point { at, event, granted, set_aside: largest(&set_aside), spent });
    }
    points
}

/// The same with at most `most` points: the last of each day, or of two days, of four, ….
fn coarsened(points: &[Point], most: usize) -> Vec<Point> {
    let Some(first) = points.first().map(|point| point.at) else { return Vec::new() };
    let mut kept = points.to_vec();
    let mut days = 1;
    while kept.len() > most.max(1) {
        let span = TimeDelta::days(days);
        let of = |point: &Point| (point.at - first).num_seconds() / span.num_seconds().max(1);
        kept = Vec::new();
        for bucket in points.chunk_by(|a, b| of(a) == of(b)) {
            if let Some(last) = bucket.last() {
                let event = if bucket.len() == 1 { last.event } else { Event::Several(bucket.len()) };
                kept.push(Point { event, ..*last });
            }
        }
        days *= 2;
    }
    kept
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(hours: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_750_000_000, 0).unwrap() + TimeDelta::hours(hours)
    }

    #[test]
    fn each_event_moves_its_own_line() {
        let (one, two) = (Digest::of(b"1"), Digest::of(b"2"));
        let changes = vec![
            Change { at: at(5), what: What::Charge(40) },
            Change { at: at(0), what: What::Answer(one, None, 100) },
            Change { at: at(0), what: What::Permit("p".into(), 1, 500) },
            Change { at: at(9), what: What::Charge(2) },
            Change { at: at(7), what: What::Permit("p".into(), 2, 300) },
            Change { at: at(8), what: What::Answer(two, Some(Code::PermitWaiting), 0) },
        ];
        let rows: Vec<_> =
            points(changes).iter().map(|p| (p.event, p.granted, p.set_aside, p.spent, p.left())).collect();
        let expect = [
            (Event::Permit(1), 500, 0, 0, 0),
            (Event::Accepted, 500, 100, 0, 100),
            (Event::Charged(40), 500, 100, 40, 60),
            (Event::Permit(2), 300, 100, 40, 60),
            (Event::NotAccepted(Code::PermitWaiting), 300, 100, 40, 60),
            (Event::Charged(2), 300, 100, 42, 58),
        ];
        assert_eq!(rows, expect);
    }

    proptest! {
        #[test]
        fn however_many_charges_there_are_the_points_are_few_and_end_with_their_sum(
            charges in proptest::collection::vec((0..9000_i64, 0..1000_u64), 1..400),
            most in 1..50_usize,
        ) {
            let changes = charges.iter().map(|(hour, rho)| Change { at: at(*hour), what: What::Charge(*rho) }).collect();
            let all = points(changes);
            let few = coarsened(&all, most);
            prop_assert!(few.len() <= most && !few.is_empty());
            prop_assert_eq!(few.last().unwrap().spent, charges.iter().map(|(_, rho)| rho).sum::<u64>());
            prop_assert!(few.is_sorted_by_key(|point| (point.at, point.spent)));
            prop_assert!(few.iter().all(|point| all.iter().any(|p| p.at == point.at && p.spent == point.spent)));
        }
    }
}
