//! Disclosure facts: what a result's released values tell a reviewer, alone and beside the study's earlier results.
//!
//! Everything is computed from released values; none of it costs rho. Facts help people to look; they prove nothing: what
//! the noise guarantees it guarantees without them, and what they do not find may still be there. Of exact results nothing is
//! guaranteed, and the facts are all there is to look at here; the hospitals have looked at theirs.

use std::collections::{BTreeMap, BTreeSet};

use arrow::{
    array::{Array, AsArray},
    datatypes::{DataType, Float64Type, Int64Type},
    record_batch::RecordBatch,
    util::display::{ArrayFormatter, FormatOptions},
};
use chrono::{DateTime, Utc};
use sekisho_aggregation::{after::CELL_NOTE, release::Release};
use sekisho_protocol::{digest::Digest, permit::Preset, refusal::Refusal};
use serde::{Deserialize, Serialize};

use super::Made;
use crate::{
    documents::{Current, unavailable},
    metering::Tally,
    report::{ALL_HOLDERS, HOLDER},
    result::{self, Judged},
    store::{KeptRound, RoundState, Store},
};

/// A value whose interval reaches further than this share of it to either side is loose.
const LOOSE: f64 = 0.3;
/// A hospital with more than this share of a cell's patients dominates it.
const DOMINANT: f64 = 0.9;
/// With how many of the study's earlier results a result is compared: the latest.
const MAX_EARLIER: usize = 20;
/// How many close cells are named of each.
const MAX_NAMED: usize = 10;

/// What a result's released values tell.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Facts {
    /// Released cells of the combined table, margins included, before HAVING, ORDER BY and LIMIT.
    pub cells: usize,
    /// The same over all hospitals' own tables.
    pub hospital_cells: usize,
    /// The values are exact: their intervals are the rounding of the rules, and nobody here can tell small cells from those that
    /// would give them away.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub exact: bool,
    /// Cells of all these tables that the preset hides; all that are hidden, of an exact result.
    pub hidden_by_preset: usize,
    /// Cells of all these tables that are hidden since the others would give a hidden one away.
    pub hidden_besides: usize,
    /// The smallest number of patients among the cells that are shown: noised, unless it is exact, so that it may be negative.
    pub smallest_shown: Option<i64>,
    /// Values with an interval in the combined table.
    pub values: usize,
    /// Of these, those whose interval reaches further than `loose_from` of the value.
    pub loose: usize,
    /// The share beyond which a value is loose.
    pub loose_from: f64,
    /// The largest share that one hospital has of a shown combined cell; none with fewer than two hospitals.
    pub largest_share: Option<f64>,
    /// Shown combined cells of which one hospital has more than `dominant_from`.
    pub dominated: usize,
    /// The share beyond which a hospital dominates.
    pub dominant_from: f64,
    /// With how many earlier results of the study this one was compared.
    pub compared: usize,
    /// Earlier results that could not be made again, and so were not compared.
    pub not_compared: usize,
    /// Counts that differ from an earlier one of the same cell by less than this are close.
    pub close_below: i64,
    /// The earlier results with close cells, the latest first.
    pub close: Vec<Close>,
    /// What the study spent at each hospital, by the receipts that are known here.
    pub spent: Vec<Spent>,
}

/// An earlier result of the study with cells close to this one's: their difference may be a few people.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Close {
    /// The earlier result.
    pub result: Digest,
    /// Its run.
    pub run: u32,
    /// When its round began.
    pub at: DateTime<Utc>,
    /// It answers the same question: another run of it, or with other hospitals.
    pub same_question: bool,
    /// Cells that both show.
    pub cells: usize,
    /// Of these, how many are close.
    pub close: usize,
    /// The first of them, by keys.
    pub named: Vec<String>,
}

/// What a study spent at one hospital.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Spent {
    /// The hospital.
    pub holder: String,
    /// Different runs.
    pub runs: u64,
    /// In micro-rho.
    pub micro_rho: u64,
}

/// The least number of patients that the preset shows; ten, where it shows everything.
fn least_shown(preset: Preset) -> u32 {
    match preset {
        Preset::None => 10,
        Preset::JpNdb | Preset::Cms | Preset::Opensafely | Preset::Datashield | Preset::Acro => {
            preset.rules().min_patients
        }
    }
}

/// The facts of `made`, beside the study's results before `round`.
pub(super) async fn of(current: &Current, store: &Store, round: &KeptRound, made: &Made) -> Result<Facts, Refusal> {
    let named: Vec<(&str, &Release)> = made.releases.iter().map(|(name, release)| (name.as_str(), release)).collect();
    let (_, judged) = result::judged(&made.plan, &named).map_err(unavailable)?;
    let preset = made.plan.preset();
    let mut facts = within(&judged, preset, made.plan.exact().is_some());
    if let Some(combined) = made.batches.first() {
        (facts.values, facts.loose) = loose(combined);
    }
    let study = current.permit(round.permit)?.study_id.clone();
    let mut tally = Tally::default();
    let mut earlier = Vec::new();
    for permit in current.permits_of_study(&study) {
        for kept in store.rounds_under(permit.digest()).await.map_err(unavailable)? {
            for release in store.releases(&kept.round).await.map_err(unavailable)? {
                tally.count(&release.header, &release.receipt, |_| true).map_err(unavailable)?;
            }
            if kept.started < round.started && matches!(kept.state, RoundState::Done(_)) {
                earlier.push(kept);
            }
        }
    }
    let spent = |(_, holder, used): (&str, &str, crate::metering::Used)| Spent {
        holder: holder.to_string(),
        runs: used.runs,
        micro_rho: used.micro_rho,
    };
    facts.spent = tally.rows().map(spent).collect();
    earlier.sort_by_key(|kept| std::cmp::Reverse(kept.started));
    let counts = counts(&made.batches);
    let mut seen = BTreeSet::from([String::from(made.digest())]);
    for kept in earlier {
        if facts.compared + facts.not_compared >= MAX_EARLIER {
            break;
        }
        let Ok(before) = Made::again(current, store, &kept).await else {
            facts.not_compared += 1;
            continue;
        };
        if before.releases.is_empty() || !seen.insert(before.digest().into()) {
            continue;
        }
        facts.compared += 1;
        let close = close(&counts, made, &before, facts.close_below);
        if close.close > 0 {
            facts.close.push(Close { at: kept.started, ..close });
        }
    }
    Ok(facts)
}

/// What one result's cells say by themselves.
fn within(judged: &Judged, preset: Preset, exact: bool) -> Facts {
    let mut facts = Facts {
        cells: judged.combined.len(),
        hospital_cells: judged.hospitals.iter().map(Vec::len).sum(),
        exact,
        hidden_by_preset: 0,
        hidden_besides: 0,
        smallest_shown: None,
        values: 0,
        loose: 0,
        loose_from: LOOSE,
        largest_share: None,
        dominated: 0,
        dominant_from: DOMINANT,
        compared: 0,
        not_compared: 0,
        close_below: least_shown(preset).into(),
        close: Vec::new(),
        spent: Vec::new(),
    };
    let mut see = |patients: i128, hidden: bool, besides: bool| {
        if hidden && (exact || preset.rules().hides(patients)) {
            facts.hidden_by_preset += 1;
        } else if hidden || besides {
            facts.hidden_besides += 1;
        } else if let Ok(patients) = i64::try_from(patients) {
            // A name that no hospital let out has no number that fits.
            facts.smallest_shown = Some(facts.smallest_shown.map_or(patients, |least| least.min(patients)));
        }
    };
    judged.combined.iter().for_each(|(patients, hidden)| see(*patients, *hidden, false));
    for (rows, besides) in judged.hospitals.iter().zip(&judged.besides) {
        for (row, (patients, hidden)) in rows.iter().enumerate() {
            see(*patients, *hidden, besides.get(row).copied().unwrap_or(true));
        }
    }
    if judged.hospitals.len() >= 2 {
        let shown = judged.combined.iter().enumerate().filter(|(_, (_, hidden))| !hidden);
        let shares: Vec<f64> = shown.filter_map(|(row, _)| share(&judged.hospitals, row)).collect();
        facts.largest_share = shares.iter().copied().reduce(f64::max);
        facts.dominated = shares.iter().filter(|share| **share > DOMINANT).count();
    }
    facts
}

/// The largest hospital's share of a row's patients; none of a row without any.
#[expect(clippy::cast_precision_loss, reason = "a share, for display")]
fn share(hospitals: &[Vec<(i128, bool)>], row: usize) -> Option<f64> {
    let present = |rows: &Vec<(i128, bool)>| rows.get(row).map(|(n, _)| *n).filter(|n| (0..i128::MAX).contains(n));
    let patients: Vec<i128> = hospitals.iter().filter_map(present).collect();
    let total = patients.iter().fold(0, |sum: i128, n| sum.saturating_add(*n));
    let most = patients.iter().max().copied()?;
    (total > 0).then(|| most as f64 / total as f64)
}

/// The places of columns with an interval after them.
fn bounded(batch: &RecordBatch) -> Vec<usize> {
    let schema = batch.schema();
    let is = |at: usize, name: &str, side: &str| {
        let field = schema.fields().get(at);
        field.is_some_and(|f| *f.data_type() == DataType::Float64 && *f.name() == format!("{name}_{side}"))
    };
    let names = schema.fields().iter().map(|field| field.name().as_str()).enumerate();
    names.filter(|(at, name)| is(at + 1, name, "low") && is(at + 2, name, "high")).map(|(at, _)| at).collect()
}

/// How many values have an interval, and how many of these are loose.
#[expect(clippy::cast_precision_loss, reason = "a count becomes a real number, to be compared with its interval")]
fn loose(combined: &RecordBatch) -> (usize, usize) {
    let (mut values, mut loose) = (0, 0);
    for at in bounded(combined) {
        let float = |at: usize| combined.column(at).as_primitive_opt::<Float64Type>();
        let (Some(low), Some(high)) = (float(at + 1), float(at + 2)) else { continue };
        for row in (0..combined.num_rows()).filter(|row| combined.column(at).is_valid(*row) && low.is_valid(*row)) {
            let counted = combined.column(at).as_primitive_opt::<Int64Type>().map(|c| c.value(row) as f64);
            let Some(value) = counted.or_else(|| float(at).map(|c| c.value(row))) else { continue };
            values += 1;
            // An interval without end is loose, whatever the value.
            let reach = ((high.value(row) - low.value(row)) / 2.0).partial_cmp(&(LOOSE * value.abs()));
            loose += usize::from(reach.is_none_or(std::cmp::Ordering::is_gt));
        }
    }
    (values, loose)
}

/// The shown counts of every row, by its hospital and its keys.
type Counts = BTreeMap<(String, String), Vec<i64>>;

fn counts(batches: &[RecordBatch]) -> Counts {
    let mut all = Counts::new();
    let options = FormatOptions::default().with_null("NULL");
    for batch in batches {
        let (bounded, schema) = (bounded(batch), batch.schema());
        let aside = |at: usize| bounded.iter().any(|b| (*b..b + 3).contains(&at));
        let name = |at: usize| schema.field(at).name().as_str();
        let keys: Vec<usize> =
            (0..batch.num_columns()).filter(|at| !aside(*at) && ![HOLDER, CELL_NOTE].contains(&name(*at))).collect();
        let numbers: Vec<_> =
            bounded.iter().filter_map(|at| batch.column(*at).as_primitive_opt::<Int64Type>()).collect();
        let text = |at: usize, row: usize| {
            let value = ArrayFormatter::try_new(batch.column(at), &options).map(|f| f.value(row).to_string());
            value.unwrap_or_default()
        };
        let (holder, notes) = (schema.index_of(HOLDER).ok(), schema.index_of(CELL_NOTE).ok());
        // Which of the cells whose key is NULL it is.
        let which = |note: &&str| note.starts_with("all of ") || note.ends_with(" outside its domain");
        for row in 0..batch.num_rows() {
            let mut key: Vec<String> = keys.iter().map(|at| format!("{}={}", name(*at), text(*at, row))).collect();
            let notes = notes.map(|at| text(at, row)).unwrap_or_default();
            key.extend(notes.split("; ").filter(which).map(str::to_string));
            let key = key.join(", ");
            let holder = holder.map(|at| text(at, row)).unwrap_or_default();
            let shown = numbers.iter().filter(|column| column.is_valid(row)).map(|column| column.value(row));
            all.entry((holder, key)).or_default().extend(shown);
        }
    }
    all
}

/// How the counts of `made` compare with those of an earlier result. Rows of a hospital whose release is in both are the same.
fn close(counts_now: &Counts, made: &Made, before: &Made, below: i64) -> Close {
    let mut close = Close {
        result: before.digest(),
        run: before.query.run,
        at: DateTime::UNIX_EPOCH,
        same_question: before.query_key == made.query_key,
        cells: 0,
        close: 0,
        named: Vec::new(),
    };
    let digests: BTreeMap<&str, Digest> =
        before.releases.iter().map(|(name, release)| (name.as_str(), release.digest())).collect();
    let unchanged: BTreeSet<&str> = made
        .releases
        .iter()
        .filter(|(name, release)| digests.get(name.as_str()) == Some(&release.digest()))
        .map(|(name, _)| name.as_str())
        .collect();
    for ((holder, key), earlier) in counts(&before.batches) {
        let Some(now) = counts_now.get(&(holder.clone(), key.clone())) else { continue };
        if unchanged.contains(holder.as_str()) || now.is_empty() || earlier.is_empty() {
            continue;
        }
        close.cells += 1;
        let near = |a: &i64| earlier.iter().any(|b| a.abs_diff(*b) < below.unsigned_abs());
        if now.iter().any(near) {
            close.close += 1;
            if close.named.len() < MAX_NAMED {
                let whose = if holder == ALL_HOLDERS { "all hospitals" } else { holder.as_str() };
                close.named.push(if key.is_empty() { whose.to_string() } else { format!("{whose}: {key}") });
            }
        }
    }
    close
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_shown_small_and_dominated_cells_are_counted() {
        let judged = Judged {
            combined: vec![(100, false), (5, true), (40, true), (30, false), (0, false)],
            hospitals: vec![
                vec![(95, false), (2, true), (20, false), (15, false), (0, false)],
                vec![(5, true), (3, true), (20, false), (15, false), (-2, false)],
            ],
            besides: vec![vec![true, false, false, false, false], vec![false, false, true, false, false]],
        };
        let facts = within(&judged, Preset::JpNdb, false);
        assert_eq!((facts.cells, facts.hospital_cells), (5, 10));
        // 5 of all; 2 of the first; 5 and 3 of the second.
        assert_eq!(facts.hidden_by_preset, 4);
        // 40 by a margin; 95 and 20 beside others.
        assert_eq!(facts.hidden_besides, 3);
        assert_eq!(facts.smallest_shown, Some(-2));
        assert_eq!((facts.largest_share, facts.dominated), (Some(0.95), 1));
        let one = Judged { hospitals: judged.hospitals[..1].to_vec(), besides: Vec::new(), ..judged };
        assert_eq!(within(&one, Preset::JpNdb, false).largest_share, None);
        let exact = within(&one, Preset::JpNdb, true);
        assert_eq!((exact.hidden_by_preset, exact.hidden_besides), (2, 0), "which hidden ones are small is not known");
    }
}
