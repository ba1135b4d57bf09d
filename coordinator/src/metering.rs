//! What studies used of hospitals, for invoices: runs, cells released and rho spent, by study and holder.
//!
//! Promises: every unit comes from a receipt that the hospital signed, and each receipt counts once, however often its
//! release was served again; a receipt belongs to the period in which its hospital reserved the charge; all numbers are
//! exact integers. An exact release is a run like any other, and costs no rho.
//!
//! Deliberately absent: rows scanned and time elapsed, which tell of the data. The size class of a holder is what its
//! catalogue declares. A run that was charged and gave no answer has no receipt here, and is not counted.

pub mod tariff;
#[cfg(test)]
pub(crate) mod tests;

use std::{
    collections::{BTreeMap, HashSet},
    fmt,
    str::FromStr,
};

use chrono::{DateTime, Datelike, Months, NaiveDate, NaiveTime, Utc};
use sekisho_aggregation::release::ReleaseHeader;
use sekisho_protocol::{catalogue::Catalogue, digest::Digest, dsse::Envelope, receipt::Receipt};
use serde::{Serialize, Serializer};

use self::tariff::{Tariff, TariffError};
use crate::store::{Kind, Store, StoreError};

/// The most catalogues of a holder among which the period's is looked for.
const MAX_CATALOGUES: u32 = 1000;

/// A month of UTC: from its first second on, to the first of the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Period {
    from: DateTime<Utc>,
    to: DateTime<Utc>,
}

impl Period {
    /// Whether `at` lies in it.
    pub fn contains(&self, at: DateTime<Utc>) -> bool {
        self.from <= at && at < self.to
    }
}

impl FromStr for Period {
    type Err = String;

    /// Reads `2026-11`.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no month: write 2026-11");
        let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
        let shape = text.len() == 7
            && text.split_once('-').is_some_and(|(year, month)| year.len() == 4 && digits(year) && digits(month));
        let first = NaiveDate::parse_from_str(&format!("{text}-01"), "%Y-%m-%d").ok().filter(|_| shape);
        let first = first.ok_or_else(wrong)?;
        let next = first.checked_add_months(Months::new(1)).ok_or_else(wrong)?;
        let begin = |day: NaiveDate| day.and_time(NaiveTime::MIN).and_utc();
        Ok(Self { from: begin(first), to: begin(next) })
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}", self.from.year(), self.from.month())
    }
}

impl Serialize for Period {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// How large a holder's data set is, as its catalogue says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum SizeClass {
    /// The holder has no catalogue, or no count in it.
    Unknown,
    /// Under 10,000 patients.
    Small,
    /// Under 100,000.
    Medium,
    /// Under 1,000,000.
    Large,
    /// More.
    VeryLarge,
}

impl SizeClass {
    /// Every class.
    pub const ALL: [Self; 5] = [Self::Unknown, Self::Small, Self::Medium, Self::Large, Self::VeryLarge];

    /// The name in exports and tariffs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Small => "small",
            Self::Medium => "medium",
            Self::Large => "large",
            Self::VeryLarge => "very-large",
        }
    }

    /// The class of so many patients, a noised count that a catalogue declares.
    pub const fn of(patients: i64) -> Self {
        match patients {
            ..10_000 => Self::Small,
            10_000..100_000 => Self::Medium,
            100_000..1_000_000 => Self::Large,
            1_000_000.. => Self::VeryLarge,
        }
    }
}

/// What one study used of one holder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Used {
    /// Different receipts.
    pub runs: u64,
    /// Groups released, over all runs.
    pub cells: u64,
    /// Rho spent, in micro-rho.
    pub micro_rho: u64,
}

/// Uses by study and holder, each receipt once.
#[derive(Debug, Default)]
pub struct Tally {
    seen: HashSet<Digest>,
    used: BTreeMap<(String, String), Used>,
}

impl Tally {
    /// Counts a release by its header and the envelope of its receipt, unless it was counted, or `within` says of the time
    /// of its charge that it does not belong here. Returns the receipt when it was counted.
    ///
    /// # Errors
    /// When header or receipt are not what was stored.
    pub fn count(
        &mut self,
        header: &[u8],
        receipt: &[u8],
        within: impl Fn(DateTime<Utc>) -> bool,
    ) -> Result<Option<Receipt>, StoreError> {
        let corrupt = |_| StoreError::Corrupt("receipt");
        let envelope = Envelope::from_json::<Receipt>(receipt).map_err(corrupt)?;
        let (receipt, digest) = envelope.peek::<Receipt>().map_err(corrupt)?;
        if !within(receipt.at) || !self.seen.insert(digest) {
            return Ok(None);
        }
        let used = self.used.entry((receipt.study_id.clone(), receipt.node.clone())).or_default();
        used.runs += 1;
        used.cells = used.cells.saturating_add(cells(header)?);
        used.micro_rho = used.micro_rho.saturating_add(receipt.micro_rho.get());
        Ok(Some(receipt))
    }

    /// Study, holder and use, in order.
    pub fn rows(&self) -> impl Iterator<Item = (&str, &str, Used)> {
        self.used.iter().map(|((study, holder), used)| (study.as_str(), holder.as_str(), *used))
    }
}

/// How many cells a release has: the groups of each part's finest grouping. Histograms have more numbers than groups, and
/// margins are sums of cells; but of exact releases they are numbers of their own, and count.
fn cells(header: &[u8]) -> Result<u64, StoreError> {
    let header: ReleaseHeader = serde_json::from_slice(header).map_err(|_| StoreError::Corrupt("release"))?;
    let of_part = |measures: &[sekisho_aggregation::release::MeasureHeader]| {
        measures.iter().filter(|m| m.kind != "histogram").map(|m| m.numbers as u64).max().unwrap_or(0)
    };
    Ok(header.parts.iter().map(|part| of_part(&part.measures)).fold(0, u64::saturating_add))
}

/// One line of the export.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Line {
    /// The study.
    pub study: String,
    /// The hospital.
    pub holder: String,
    /// Its declared size.
    pub size_class: SizeClass,
    /// Different runs that it answered.
    pub runs: u64,
    /// Cells that it released.
    pub cells: u64,
    /// What that cost of its patients' budget, in micro-rho.
    pub micro_rho: u64,
    /// By the tariff, in minor units of its currency; none without a tariff.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub amount_minor: Option<u64>,
}

/// The export.
#[derive(Clone, Debug, Serialize)]
pub struct Export {
    /// The month.
    pub period: Period,
    /// The tariff's currency, and how many decimals its minor unit is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub currency: Option<tariff::Currency>,
    /// One line for each study and holder.
    pub lines: Vec<Line>,
    /// The sum of all amounts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total_minor: Option<u64>,
}

/// Why there is no export.
#[derive(Debug, thiserror::Error)]
pub enum MeteringError {
    /// The database cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The tariff does not price what was used.
    #[error(transparent)]
    Tariff(#[from] TariffError),
}

/// The uses of a period.
///
/// # Errors
/// When the database cannot be read, or the tariff does not price what was used.
pub async fn export(store: &Store, period: Period, tariff: Option<&Tariff>) -> Result<Export, MeteringError> {
    let mut tally = Tally::default();
    let within = |at| period.contains(at);
    store.each_release(|kept| tally.count(&kept.header, &kept.receipt, within).map(drop)).await?;
    let mut classes = BTreeMap::new();
    for (_, holder, _) in tally.rows() {
        if !classes.contains_key(holder) {
            classes.insert(holder.to_string(), declared_size(store, holder, period).await?);
        }
    }
    lines(&tally, &classes, period, tariff)
}

fn lines(
    tally: &Tally,
    classes: &BTreeMap<String, SizeClass>,
    period: Period,
    tariff: Option<&Tariff>,
) -> Result<Export, MeteringError> {
    let line = |(study, holder, used): (&str, &str, Used)| {
        let size_class = classes.get(holder).copied().unwrap_or(SizeClass::Unknown);
        let amount_minor = tariff.map(|tariff| tariff.amount(used, size_class)).transpose()?;
        let (study, holder) = (study.to_string(), holder.to_string());
        let Used { runs, cells, micro_rho } = used;
        Ok(Line { study, holder, size_class, runs, cells, micro_rho, amount_minor })
    };
    let lines = tally.rows().map(line).collect::<Result<Vec<_>, TariffError>>()?;
    let sum = || lines.iter().filter_map(|line| line.amount_minor).try_fold(0_u64, u64::checked_add);
    let total_minor = tariff.map(|_| sum().ok_or(TariffError::TooLarge)).transpose()?;
    Ok(Export { period, currency: tariff.map(|t| t.currency().clone()), lines, total_minor })
}

/// The size that a holder's newest catalogue from before the period's end declares: that of its largest table of patients.
async fn declared_size(store: &Store, holder: &str, period: Period) -> Result<SizeClass, StoreError> {
    for kept in store.kept(Kind::Catalogue, Some(holder), MAX_CATALOGUES).await? {
        let envelope =
            Envelope::from_json::<Catalogue>(&kept.envelope).map_err(|_| StoreError::Corrupt("catalogue"))?;
        let (catalogue, _) = envelope.peek::<Catalogue>().map_err(|_| StoreError::Corrupt("catalogue"))?;
        if catalogue.issued < period.to {
            let counts = catalogue.data_sets.iter().flat_map(|set| &set.tables).filter_map(|t| t.counts.as_ref());
            let largest = counts.map(|counts| counts.individuals.estimate).max();
            return Ok(largest.map_or(SizeClass::Unknown, SizeClass::of));
        }
    }
    Ok(SizeClass::Unknown)
}
