//! `sekisho query`: asks a question under a permit, or what it would cost.
//!
//! The question is made, checked against the permit and signed here, so that the coordinator can change nothing
//! in it. What the permit does not allow is refused before anything is sent. Deliberately absent: asking again
//! by itself; a new run costs, and the person decides.

mod dry_run;

use std::path::{Path, PathBuf};

use chrono::{DateTime, TimeDelta, Utc};
use clap::{Args, FromArgMatches};
use rand::{TryRngCore, rngs::OsRng};
use sekisho_protocol::{
    digest::Digest,
    dsse::Envelope,
    key_file,
    keys::SecretKey,
    permit::{Permit, ReleaseKind},
    query::{MAX_LIFETIME, MAX_SQL_BYTES, Query, Terms},
    receipt::Receipt,
    refusal::{Code, Refusal},
    roster::is_name,
    units::MicroRho,
};

use super::{
    Context,
    answer::Rows,
    door::Answer,
    duration,
    failure::{Exit, Failure},
    file,
    format::{self, Format, Target},
    permit,
    print::{self, Spinner},
    terms,
};
use crate::report::{BiteReport, HolderReport, HolderState, Protection, ResultReport};

pub(crate) use self::dry_run::CELL_SIZES;

/// The text of a question.
#[derive(Debug, Args)]
#[group(id = "question", required = true, multiple = false)]
pub struct Question {
    /// The SQL (white space around it is dropped).
    #[arg(long, value_name = "TEXT")]
    sql: Option<String>,
    /// A file with the SQL.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
}

impl Question {
    /// The SQL without the white space around it, which is no part of the question.
    ///
    /// # Errors
    /// When the file cannot be read, or the SQL is longer than is read.
    pub fn sql(&self) -> Result<String, Failure> {
        let sql = match (&self.sql, &self.file) {
            (Some(sql), _) => sql.clone(),
            (None, Some(path)) => file::read_text(path)?,
            (None, None) => return Err(Failure::input("there is no SQL", "give --sql or --file")),
        };
        within_size(&sql).map(ToString::to_string)
    }
}

/// A question.
#[derive(Debug, Args)]
pub struct Command {
    /// The permit: a file, an id (its newest version), or a digest.
    #[arg(long, value_name = "FILE|ID|DIGEST")]
    permit: String,
    #[command(flatten)]
    question: Question,
    #[command(flatten)]
    terms: terms::Flags,
    /// The person's key, which the permit names.
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// Which run of the question: one that exists is served again and is free, a new one is charged.
    #[arg(long, value_name = "N", default_value_t = 1)]
    run: u32,
    /// What each hospital charges, in millionths of rho [default: the permit's per query; nothing for a query that it lists as
    /// aggregated].
    #[arg(long, value_name = "MICRO")]
    rho: Option<u64>,
    /// Which hospitals are asked [default: all of the permit].
    #[arg(long, value_name = "NAME,NAME", value_delimiter = ',')]
    holders: Vec<String>,
    /// The confidence of the intervals.
    #[arg(long, default_value_t = 0.95, value_parser = confidence)]
    confidence: f64,
    /// Each hospital's table too.
    #[arg(long)]
    by_holder: bool,
    /// Only say what it would cost and who would admit it: no row is touched, nothing is charged.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    target: Target,
    /// For how long the hospitals may take the question, 24h at most.
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = duration::parse)]
    valid_for: TimeDelta,
    /// Save each hospital's signed receipt in this folder.
    #[arg(long, value_name = "DIR")]
    receipts: Option<PathBuf>,
}

fn confidence(text: &str) -> Result<f64, String> {
    let level: Option<f64> = text.parse().ok();
    level.filter(|l| *l > 0.0 && *l < 1.0).ok_or_else(|| "write a number between 0 and 1: 0.95".into())
}

/// Asks.
///
/// # Errors
/// When the question is not as the permit allows, or the coordinator refuses or cannot be reached.
pub async fn run(command: &Command, context: &Context) -> Result<Exit, Failure> {
    let target = &command.target;
    if command.dry_run && !matches!(target.format, Format::Table | Format::Json) {
        return Err(Failure::input("a dry run has no table of results", "use --output table or --output json"));
    }
    target.check()?;
    let sql = command.question.sql()?;
    if command.valid_for > MAX_LIFETIME {
        return Err(Failure::input("--valid-for is above 24h", "give 24h or less"));
    }
    let key = key_file::read(&command.key)?;
    let (_, permit, digest) = permit::find(&command.permit, context).await?;
    print::note(&format!("permit {} version {}, digest {digest}", permit.id, permit.version));
    let query = question(command, &sql, &permit, digest, &key, context.now)?;
    let envelope = Envelope::sign(&query, &[&key])
        .map_err(|e| Failure::input(e.to_string(), "mend what the message names; nothing was sent"))?;
    if let Some(folder) = command.receipts.as_deref().filter(|_| !command.dry_run) {
        // Before the charge, since afterwards it is too late to learn that the disk is full.
        std::fs::create_dir_all(folder).map_err(|e| Failure::file(folder, &e))?;
    }
    let mut door = context.door().await?;
    let spinner = Spinner::start(format!("asking {}", query.holders.join(", ")));
    if command.dry_run {
        let report = door.dry_run(&envelope).await.map_err(|failure| failure.placed(&sql))?;
        drop(spinner);
        return dry_run::dry_run(&report, target);
    }
    let answer = door.ask(&envelope, command.confidence).await.map_err(|failure| failure.placed(&sql))?;
    drop(spinner);
    show(&answer, command)?;
    if let Some(folder) = &command.receipts {
        save_receipts(folder, &answer.report, &query)?;
    }
    Ok(outcome(&answer.report))
}

fn within_size(sql: &str) -> Result<&str, Failure> {
    let sql = sql.trim();
    if sql.len() > MAX_SQL_BYTES {
        let detail = format!("the SQL has {} bytes; at most {MAX_SQL_BYTES} are read; nothing was sent", sql.len());
        return Err(Refusal::new(Code::TooLarge, detail).into());
    }
    Ok(sql)
}

/// The question as it is signed; what the permit does not allow is refused here already.
fn question(
    command: &Command,
    sql: &str,
    permit: &Permit,
    digest: Digest,
    key: &SecretKey,
    now: DateTime<Utc>,
) -> Result<Query, Failure> {
    let fingerprint = key.public().fingerprint();
    if permit.person(fingerprint).is_none() {
        return Err(Refusal::new(Code::UnknownPerson, format!("the permit does not name key {fingerprint}")).into());
    }
    let Asked { holders, micro_rho, terms } = command.asked(sql, permit)?;
    let mut nonce = [0; 16];
    OsRng
        .try_fill_bytes(&mut nonce)
        .map_err(|e| Failure::input(format!("the system gave no randomness: {e}"), "try again"))?;
    Ok(Query {
        permit: digest,
        sql: sql.into(),
        holders,
        micro_rho,
        run: command.run,
        expires: now + command.valid_for,
        nonce: hex::encode(nonce),
        terms,
    })
}

/// Of whom what is asked, at which price and under which terms.
pub(crate) struct Asked {
    /// The hospitals, sorted.
    pub holders: Vec<String>,
    /// What each charges.
    pub micro_rho: MicroRho,
    /// The terms.
    pub terms: Terms,
}

impl Command {
    /// The question of these flags, each `--name=value`.
    ///
    /// # Errors
    /// What is wrong with one of them.
    pub(crate) fn of_flags(flags: &[String]) -> Result<Self, Failure> {
        let wrong = |usage: clap::Error| {
            let text = usage.to_string();
            let first = text.lines().next().unwrap_or_default();
            Failure::input(first.strip_prefix("error: ").unwrap_or(first), "mend what the message names")
        };
        let line = Self::augment_args(clap::Command::new("query").no_binary_name(true).disable_help_flag(true));
        let matches = line.try_get_matches_from(flags).map_err(wrong)?;
        Self::from_arg_matches(&matches).map_err(wrong)
    }

    /// The SQL that is asked.
    ///
    /// # Errors
    /// As [`Question::sql`].
    pub(crate) fn sql(&self) -> Result<String, Failure> {
        self.question.sql()
    }

    /// Which run of the question.
    pub(crate) fn run(&self) -> u32 {
        self.run
    }

    /// The confidence of the intervals.
    pub(crate) fn confidence(&self) -> f64 {
        self.confidence
    }

    /// What is asked, within what `permit` allows.
    ///
    /// # Errors
    /// What the permit does not allow.
    pub(crate) fn asked(&self, sql: &str, permit: &Permit) -> Result<Asked, Failure> {
        let terms = self.terms.terms();
        let micro_rho = charge(sql, self.rho, &terms, permit)?;
        let permitted = permit.holders();
        let mut holders = if self.holders.is_empty() { permitted.clone() } else { self.holders.clone() };
        holders.sort();
        holders.dedup();
        if let Some(other) = holders.iter().find(|h| !permitted.contains(h)) {
            let detail = format!("the permit does not name {other}; it names {}", permitted.join(", "));
            return Err(Refusal::new(Code::HolderNotPermitted, detail).into());
        }
        Ok(Asked { holders, micro_rho, terms })
    }
}

/// What each hospital shall charge under these terms: what was asked for, or what the permit says; nothing for what the permit
/// lists as aggregated.
///
/// # Errors
/// When price or terms are not as the permit allows, or are given for a query that has none.
pub fn charge(sql: &str, asked: Option<u64>, terms: &Terms, permit: &Permit) -> Result<MicroRho, Failure> {
    match permit.release_of(sql) {
        ReleaseKind::Noised => {
            terms::check(terms, permit)?;
            micro_rho(asked, permit)
        }
        ReleaseKind::Aggregated => {
            let given = if asked.is_some() { "a price" } else { "terms" };
            if asked.is_some() || !terms.is_default() {
                let detail = format!("{given} of a query that permit {} lists as aggregated", permit.id);
                return Err(Failure::input(detail, "leave it out: an exact result costs no rho and has no terms"));
            }
            Ok(MicroRho::ZERO)
        }
    }
}

fn micro_rho(asked: Option<u64>, permit: &Permit) -> Result<MicroRho, Failure> {
    let permitted = permit.dp.micro_rho_per_query;
    let micro_rho = asked.map_or(Ok(permitted), |rho| {
        MicroRho::try_from(rho).map_err(|e| Failure::input(e.to_string(), "give a smaller --rho"))
    })?;
    if micro_rho == MicroRho::ZERO {
        return Err(Failure::input("--rho is 0", "a release costs something: give 1 or more"));
    }
    if micro_rho > permitted {
        let detail = format!("{micro_rho} is above the permit's {permitted} a query");
        return Err(Refusal::new(Code::BudgetQuery, detail).into());
    }
    Ok(micro_rho)
}

fn show(answer: &Answer, command: &Command) -> Result<(), Failure> {
    let rows = Rows::of(answer)?;
    let report = &answer.report;
    let (target, by_holder) = (&command.target, command.by_holder);
    match target.format {
        Format::Table => {
            let (holders, facts) = (print::holders(&report.holders), print::pairs(&facts(report)));
            target.text(&[rows.table(by_holder)?, holders, facts].join("\n\n"))?;
        }
        Format::Json => target.text(&rows.json(report)?)?,
        Format::Csv => target.text(&rows.csv(by_holder)?)?,
        Format::Arrow => target.bytes(&format::arrow(&rows.described(by_holder, report)?)?)?,
        Format::Parquet => target.bytes(&format::parquet(&rows.described(by_holder, report)?)?)?,
    }
    if matches!(target.format, Format::Csv | Format::Arrow | Format::Parquet) {
        for holder in &report.holders {
            let code = holder.code.map(|c| format!(" ({c})")).unwrap_or_default();
            print::note(&format!("{}: {}{code}", holder.name, print::did(holder)));
        }
        for (_, warning) in print::unguarded(&report.holders) {
            print::note(&format!("warning: {warning}"));
        }
    }
    if report.synthetic {
        print::note("warning: some of the data is declared synthetic; its cost may pass the ceilings for patients");
    }
    if !report.complete {
        let missing = report.holders.iter().filter(|h| h.state != HolderState::Answered).map(|h| h.name.as_str());
        let missing: Vec<&str> = missing.collect();
        print::note(&format!("warning: incomplete: the sums lack {}", missing.join(", ")));
        print::note(&format!(
            "  do: ask the same question again with --run {}; what was released costs nothing",
            report.run
        ));
    }
    Ok(())
}

fn facts(report: &ResultReport) -> Vec<(&'static str, String)> {
    let mut facts = print::privacy(&report.privacy);
    facts.extend(print::unguarded(&report.holders));
    match &report.privacy.protection {
        Protection::Noised(_) => {
            facts.push(("confidence", format!("{} of each interval", report.confidence)));
            facts.push(("averages", report.method.clone()));
        }
        Protection::Exact(_) => facts.push(("numbers", report.method.clone())),
    }
    let bite = |b: &BiteReport| format!("{:.0} {} ({:.0} to {:.0})", b.estimate, b.counted, b.low, b.high);
    facts.extend(report.bites.iter().map(|b| ("bounds bit", bite(b))));
    facts.push(("data", if report.synthetic { "synthetic, in part or whole" } else { "patients" }.into()));
    facts.push(("complete", if report.complete { "yes" } else { "NO: incomplete" }.into()));
    facts.push(("round", format!("{}, run {}, query {}", report.round, report.run, report.query)));
    facts
}

/// How a round ended: refused when nobody answered or looks at it, and somebody refused.
fn outcome(report: &ResultReport) -> Exit {
    let refused = |h: &&HolderReport| h.state == HolderState::Refused && !h.waits();
    report.holders.iter().filter(refused).for_each(print::refusal);
    waiting(&report.holders);
    let any = |of: &dyn Fn(&HolderReport) -> bool| report.holders.iter().any(of);
    if report.complete {
        Exit::Done
    } else if any(&|h| refused(&h)) && !any(&|h| h.waits() || h.state == HolderState::Answered) {
        Exit::Refused
    } else {
        Exit::Incomplete
    }
}

/// Says at which hospitals the question waits for a person.
fn waiting(holders: &[HolderReport]) {
    let names: Vec<&str> = holders.iter().filter(|h| h.waits()).map(|h| h.name.as_str()).collect();
    if !names.is_empty() {
        print::note(&format!("exact_waiting: a person looks at this exact result at {}", names.join(", ")));
        print::note(&format!("  do: {}", Code::ExactWaiting.advice()));
    }
}

/// Saves the receipts, named by hospital and query, so that none replaces that of another query.
fn save_receipts(folder: &Path, report: &ResultReport, query: &Query) -> Result<(), Failure> {
    for holder in &report.holders {
        let Some(receipt) = &holder.receipt else { continue };
        let about = receipt.peek::<Receipt>().is_ok_and(|(receipt, _)| {
            receipt.node == holder.name && receipt.query_key == query.key() && receipt.run == query.run
        });
        if !is_name(&holder.name) || !about {
            print::note(&format!("warning: {}: its receipt is about something else and is not saved", holder.name));
            continue;
        }
        let name = format!("{}.{}.receipt.dsse.json", holder.name, report.query.short());
        file::replace(&folder.join(name), &receipt.to_json())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use sekisho_protocol::{
        dsse::Document,
        permit::{AllowedQuery, Preset},
    };

    use super::*;
    use crate::person::permit_file;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        command: Command,
    }

    fn command(more: &[&str]) -> Result<Command, clap::Error> {
        let line = ["query", "--permit", "p", "--key", "k.pem"].iter().chain(more);
        Line::try_parse_from(line).map(|line| line.command)
    }

    /// The question of a person whom the template's permit names, or of a stranger.
    fn asked(more: &[&str], stranger: bool) -> Result<Query, Failure> {
        asked_of(more, stranger, |_| {})
    }

    fn asked_of(more: &[&str], stranger: bool, change: impl FnOnce(&mut Permit)) -> Result<Query, Failure> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("permit.toml");
        std::fs::write(&path, permit_file::TEMPLATE).unwrap();
        let mut permit = permit_file::read(&path).unwrap();
        change(&mut permit);
        let key = SecretKey::generate(&mut rand::rng());
        if !stranger {
            permit.authorised_persons[0].key = key.public();
            permit.authorised_persons[0].key_fingerprint = key.public().fingerprint();
        }
        let more: Vec<&str> = ["--sql", "SELECT 1"].iter().chain(more).copied().collect();
        let at = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        question(&command(&more).unwrap(), "SELECT 1", &permit, Digest::of(b"permit"), &key, at)
    }

    #[test]
    fn hospitals_are_sorted_and_named_once() {
        let query = asked(&["--holders", "tokyo,osaka,tokyo"], false).unwrap();
        assert_eq!(query.holders, ["osaka", "tokyo"]);
        assert_eq!(query.check(), Ok(()));
        assert_eq!(asked(&["--holders", "tokyo"], false).unwrap().holders, ["tokyo"]);
    }

    #[test]
    fn what_is_not_said_is_as_the_permit_says() {
        let query = asked(&[], false).unwrap();
        assert_eq!((query.holders.len(), query.micro_rho.get(), query.run), (2, 50_000, 1));
        assert_eq!(query.expires.timestamp(), 1_800_000_600);
        assert_ne!(query.nonce, asked(&[], false).unwrap().nonce);
    }

    #[test]
    fn what_the_permit_does_not_allow_is_refused_before_it_is_sent() {
        for (more, stranger, code) in [
            (&["--holders", "kyoto"][..], false, "holder_not_permitted"),
            (&["--rho", "50001"], false, "budget_query"),
            (&["--rho", "0"], false, "bad_input"),
            (&[], true, "unknown_person"),
        ] {
            assert_eq!(asked(more, stranger).unwrap_err().code(), code, "{more:?}");
        }
    }

    #[test]
    fn what_the_permit_lists_as_aggregated_is_asked_at_no_price_and_without_terms() {
        let exact = |more: &[&str]| {
            asked_of(more, false, |permit| {
                permit.release_kinds = vec![ReleaseKind::Aggregated];
                let sha256 = Digest::of(b"SELECT 1");
                permit.allowed_queries =
                    Some(vec![AllowedQuery { sha256, max_runs: 1, release: ReleaseKind::Aggregated }]);
            })
        };
        let query = exact(&[]).unwrap();
        assert_eq!((query.micro_rho, query.terms.is_default(), query.holders.len()), (MicroRho::ZERO, true, 2));
        for given in [&["--rho", "1000"][..], &["--rho", "0"], &["--rows-per-patient", "1"], &["--bite", "10"]] {
            let failure = exact(given).unwrap_err();
            assert!(failure.code() == "bad_input" && failure.detail().contains("as aggregated"), "{failure}");
        }
    }

    #[test]
    fn a_hospital_where_a_person_looks_has_not_refused() {
        let report = |states: &[(&str, Option<&str>)]| -> ResultReport {
            let holders: Vec<_> = states
                .iter()
                .map(|(state, code)| serde_json::json!({"name": "tokyo", "state": state, "code": code}))
                .collect();
            let digest = Digest::of(b"");
            serde_json::from_value(serde_json::json!({
                "round": "r", "permit": digest, "query": digest, "run": 1, "at": "2026-11-01T00:00:00Z",
                "complete": states.iter().all(|(state, _)| *state == "answered"), "confidence": 0.95, "preset": "acro",
                "synthetic": false, "method": "", "privacy": {"micro_rho": 0, "exact": Preset::Acro.rules(), "noise": []},
                "holders": holders,
            }))
            .unwrap()
        };
        let (waits, refuses) = (("refused", Some("exact_waiting")), ("refused", Some("exact_refused")));
        for (states, expect) in [
            (vec![("answered", None)], Exit::Done),
            (vec![waits], Exit::Incomplete),
            (vec![("answered", None), waits], Exit::Incomplete),
            (vec![waits, refuses], Exit::Incomplete),
            (vec![refuses], Exit::Refused),
        ] {
            let report = report(&states);
            assert_eq!(outcome(&report), expect, "{states:?}");
            assert_eq!(print::holders(&report.holders).contains("waits"), states.contains(&waits));
        }
        let text = print::pairs(&facts(&report(&[waits])));
        assert!(text.contains("EXACT") || text.contains("exact"), "{text}");
        assert!(!text.contains("epsilon") && text.contains("not differentially private"), "{text}");
        let mut noised: ResultReport = report(&[("answered", None)]);
        noised.holders[0].exact_since = "2026-11-20".parse().ok();
        let text = print::pairs(&facts(&noised));
        assert!(text.contains("tokyo: since 2026-11-20 no guarantee of differential privacy holds"), "{text}");
    }

    #[test]
    fn terms_are_signed_and_never_wider_than_the_permit() {
        let query = asked(&["--bounds", "stay.days=0..30", "--rows-per-patient", "2", "--shares=2,1"], false).unwrap();
        assert_eq!((query.terms.bounds.len(), query.terms.rows_per_patient), (1, Some(2)));
        assert_eq!(query.terms.shares, [2, 1]);
        assert_eq!(query.check(), Ok(()));
        assert_eq!(asked(&["--rows-per-patient", "5"], false).unwrap_err().code(), "terms");
        let twice = asked(&["--bounds", "stay.days=0..30", "--bounds", "stay.days=0..20"], false).unwrap();
        assert!(twice.check().is_err(), "a column has its bounds once");
    }

    #[test]
    fn sql_over_64_kib_is_too_large() {
        let longest = "x".repeat(MAX_SQL_BYTES);
        assert_eq!(within_size(&format!(" {longest}\n")).unwrap(), longest);
        let failure = within_size(&format!("{longest}x")).unwrap_err();
        assert_eq!((failure.code(), failure.exit()), ("too_large", Exit::Refused));
    }

    #[test]
    fn a_question_is_text_or_a_file() {
        assert!(command(&["--sql", "SELECT 1"]).is_ok());
        assert!(command(&["--file", "q.sql"]).is_ok());
        assert!(command(&[]).is_err());
        assert!(command(&["--sql", "SELECT 1", "--file", "q.sql"]).is_err());
        assert!(command(&["--sql", "SELECT 1", "--confidence", "1"]).is_err());
    }
}
