//! A question in the form of a page: the command line that asks it, and what it would cost, how exact its answer would
//! be and who could answer, before anything is signed.
//!
//! Promises: every field is read by the very parser of `sekisho query`, so that the line that is shown is one that it
//! takes; the analysis is the nodes' own; nothing is signed, sent to a hospital or charged. Deliberately absent: the
//! question itself: it is asked on the person's own machine, with the person's key. What a hospital's own policy says
//! only a dry run there tells.

use chrono::{DateTime, Utc};
use sekisho_aggregation::{explain::Explanation, interval::Spread, plan::PrivatePlan};
use sekisho_protocol::{
    digest::Digest,
    permit::{Mechanism, Permit},
    query::{MAX_SQL_BYTES, Query},
    refusal::{Code, Refusal},
    schema::Schema,
    units::MicroRho,
};

use super::{super::command_line, studies::Own};
use crate::{
    documents::{Documents, unavailable},
    person::{
        failure::Failure,
        number::{relative, significant},
        query::{Asked, CELL_SIZES, Command},
    },
    report::{NoiseReport, PrivacyReport},
    result,
    store::Store,
};

/// The key's file on the person's machine, of which we know nothing.
const KEY: &str = "YOUR-KEY.pem";
/// A unit so small that rounding up to it changes nothing that is shown.
const FINE: f64 = 1e6;

/// What stands in the form.
#[derive(Clone, Debug, Default)]
pub struct Form {
    /// The permit, by digest.
    pub permit: String,
    /// The question.
    pub sql: String,
    /// The hospitals that are ticked.
    pub holders: Vec<String>,
    /// What each charges.
    pub rho: String,
    /// Which run.
    pub run: String,
    /// Narrower bounds, one a line.
    pub bounds: String,
    /// How many rows of a patient count in full.
    pub rows_per_patient: String,
    /// In how many groups a patient counts in full.
    pub groups_per_patient: String,
    /// How rho is divided.
    pub shares: String,
    /// The percentage for a report on bounds.
    pub bite: String,
    /// For keys that are not public.
    pub delta: String,
    /// Of the intervals.
    pub confidence: String,
}

impl Form {
    /// The form of these fields; what is not one of them is not looked at.
    pub fn of(fields: Vec<(String, String)>) -> Self {
        let mut form = Self::default();
        for (name, value) in fields {
            let field = match name.as_str() {
                "permit" => &mut form.permit,
                "sql" => {
                    // A browser sends line ends as CR LF; a file has LF, and the text is signed as it is.
                    form.sql = value.replace("\r\n", "\n");
                    continue;
                }
                "holder" => {
                    form.holders.push(value);
                    continue;
                }
                "rho" => &mut form.rho,
                "run" => &mut form.run,
                "bounds" => &mut form.bounds,
                "rows_per_patient" => &mut form.rows_per_patient,
                "groups_per_patient" => &mut form.groups_per_patient,
                "shares" => &mut form.shares,
                "bite" => &mut form.bite,
                "delta" => &mut form.delta,
                "confidence" => &mut form.confidence,
                _ => continue,
            };
            *field = value.trim().to_string();
        }
        form
    }

    /// Whether this hospital is asked; all are, where none is ticked.
    pub fn asks(&self, holder: &str) -> bool {
        self.holders.is_empty() || self.holders.iter().any(|ticked| ticked == holder)
    }

    /// Whether something is narrowed or divided.
    pub fn narrows(&self) -> bool {
        let fields =
            [&self.bounds, &self.rows_per_patient, &self.groups_per_patient, &self.shares, &self.bite, &self.delta];
        fields.iter().any(|field| !field.is_empty())
    }

    /// The flags as `sekisho query` takes them, with the permit called `name`.
    fn flags(&self, name: &str, all: &[String]) -> Vec<(&'static str, String)> {
        let mut flags = vec![("permit", name.to_string()), ("sql", self.sql.trim().to_string())];
        if !all.iter().all(|holder| self.asks(holder)) {
            flags.push(("holders", self.holders.join(",")));
        }
        for (name, value) in [
            ("rho", &self.rho),
            ("run", &self.run),
            ("rows-per-patient", &self.rows_per_patient),
            ("groups-per-patient", &self.groups_per_patient),
            ("shares", &self.shares),
            ("bite", &self.bite),
            ("delta", &self.delta),
            ("confidence", &self.confidence),
        ] {
            if !value.is_empty() {
                flags.push((name, value.clone()));
            }
        }
        let bounds = self.bounds.lines().map(str::trim).filter(|line| !line.is_empty());
        flags.extend(bounds.map(|line| ("bounds", line.to_string())));
        flags.push(("key", KEY.into()));
        flags
    }
}

/// How exact one measure would be.
#[derive(Debug)]
pub struct Accuracy {
    /// What is measured, and the answer's columns that are made of it.
    pub noise: NoiseReport,
    /// The standard deviation, rounded.
    pub standard_deviation: String,
    /// Half the width of the interval of one hospital's cell.
    pub one: String,
    /// The same of the sum over all that are asked.
    pub all: String,
    /// The noise relative to cells of [`CELL_SIZES`].
    pub relative: Vec<String>,
}

/// What the question costs at one hospital.
#[derive(Debug)]
pub struct Price {
    /// The hospital.
    pub holder: String,
    /// Its answer to the permit.
    pub answer: String,
    /// What the study has left there at most.
    pub left: MicroRho,
    /// This run was answered: asking it again is free.
    pub stored: bool,
    /// What is left suffices.
    pub enough: bool,
}

/// What was found out about a question.
#[derive(Debug)]
pub struct Analysis {
    /// What it is taken to mean.
    pub explanation: Explanation,
    /// Cost and protection.
    pub privacy: PrivacyReport,
    /// How exact each measure would be.
    pub accuracy: Vec<Accuracy>,
    /// What it costs where.
    pub prices: Vec<Price>,
    /// The confidence of the intervals, in percent.
    pub percent: String,
    /// The line that asks.
    pub line: String,
    /// The line that asks every hospital whether it would answer, and charges nothing.
    pub dry_line: String,
}

impl Analysis {
    /// The answer would be exact.
    pub fn is_exact(&self) -> bool {
        self.privacy.protection.rules().is_some()
    }
}

/// Analyses the question of `form` under the permit `own`.
///
/// # Errors
/// What is wrong with a field, or why the question is not admitted, with its place in the SQL.
pub async fn analysed(
    form: &Form,
    own: &Own,
    documents: &Documents,
    store: &Store,
    now: DateTime<Utc>,
) -> Result<Analysis, Failure> {
    let permit = &own.permit;
    let name = if own.newest { permit.id.clone() } else { permit.digest().to_string() };
    if form.sql.len() > MAX_SQL_BYTES {
        let detail = format!("the SQL has {} bytes; at most {MAX_SQL_BYTES} are read", form.sql.len());
        return Err(Refusal::new(Code::TooLarge, detail).into());
    }
    if form.sql.trim().is_empty() {
        return Err(Failure::input("there is no SQL", "write the question"));
    }
    let flags = form.flags(&name, &permit.holders());
    let command =
        Command::of_flags(&flags.iter().map(|(name, value)| format!("--{name}={value}")).collect::<Vec<_>>())?;
    let sql = command.sql()?;
    let asked = command.asked(&sql, permit)?;
    if let Some(refusal) = &own.void {
        return Err(refusal.clone().into());
    }
    let schema = documents.current().schema(permit.schema)?.clone();
    let (text, granted, rho, terms) = (sql.clone(), permit.clone(), asked.micro_rho, asked.terms.clone());
    // Planning takes processor time in proportion to the SQL, so it keeps off the threads that answer.
    let planning = tokio::task::spawn_blocking(move || {
        let schema: &Schema = &schema;
        PrivatePlan::analyse_with(&text, schema, &granted, rho, &terms)
    });
    let plan = planning.await.map_err(unavailable)?.map_err(|refusal| Failure::from(refusal).placed(&sql))?;
    let privacy = result::privacy(&plan, permit);
    let level = command.confidence();
    let accuracy = privacy.noise.iter().map(|noise| accuracy(noise, permit, asked.holders.len(), level)).collect();
    let prices = prices(&sql, &asked, command.run(), permit.digest(), documents, store, now).await?;
    Ok(Analysis {
        explanation: plan.explain(),
        privacy,
        accuracy,
        prices,
        percent: significant(level * 100.0).trim_end_matches('0').trim_end_matches('.').into(),
        line: line(&flags, false),
        dry_line: line(&flags, true),
    })
}

/// The flags as one line of a shell.
fn line(flags: &[(&'static str, String)], dry: bool) -> String {
    let mut words: Vec<String> = vec!["sekisho".into(), "query".into()];
    for (name, value) in flags {
        // A value that begins like a flag, as a comment of SQL does, must stand behind an equals sign.
        if value.starts_with('-') {
            words.push(format!("--{name}={value}"));
        } else {
            words.extend([format!("--{name}"), value.clone()]);
        }
    }
    words.extend(dry.then(|| "--dry-run".into()));
    command_line::line(words.iter().map(String::as_str))
}

fn accuracy(noise: &NoiseReport, permit: &Permit, hospitals: usize, level: f64) -> Accuracy {
    let sd = noise.standard_deviation * FINE;
    let spread = match permit.dp.mechanism {
        Mechanism::Gaussian => Spread::Gaussian { variance: sd * sd },
        // The variance of a Laplace variable is twice the square of its scale.
        Mechanism::Laplace => Spread::Laplace { scale: sd / std::f64::consts::SQRT_2, terms: 1 },
    };
    let half = |hospitals: u32| significant(spread.times(hospitals).half_width(level) / FINE);
    Accuracy {
        standard_deviation: significant(noise.standard_deviation),
        one: half(1),
        all: half(u32::try_from(hospitals).unwrap_or(u32::MAX)),
        relative: CELL_SIZES.map(|size| relative(noise.standard_deviation, noise.counts, size)).into(),
        noise: noise.clone(),
    }
}

async fn prices(
    sql: &str,
    asked: &Asked,
    run: u32,
    permit: Digest,
    documents: &Documents,
    store: &Store,
    now: DateTime<Utc>,
) -> Result<Vec<Price>, Failure> {
    let Asked { holders, micro_rho, terms } = asked;
    let query = Query {
        permit,
        sql: sql.into(),
        holders: holders.clone(),
        micro_rho: *micro_rho,
        run,
        expires: now,
        nonce: String::new(),
        terms: terms.clone(),
    };
    let key = query.key();
    let mut stored = Vec::new();
    for round in store.rounds_under(permit).await.map_err(unavailable)? {
        if round.query_key == key && round.run == run {
            stored.extend(store.releases(&round.round).await.map_err(unavailable)?.into_iter().map(|kept| kept.node));
        }
    }
    let budget = documents.budget(&permit.to_string()).await?;
    let price = |holder: &String| {
        let known = budget.holders.iter().find(|known| known.name == *holder);
        let (answer, left) = known.map_or(("none yet", MicroRho::ZERO), |known| (known.answer.as_str(), known.left));
        let stored = stored.contains(holder);
        Price { holder: holder.clone(), answer: answer.into(), left, stored, enough: stored || left >= *micro_rho }
    };
    Ok(holders.iter().map(price).collect())
}
