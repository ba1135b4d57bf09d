//! The story of one study, from the catalogue to the public register, in real processes: `demo --story governance`.
//!
//! Every step is a command that a person would type. The story prints it with what it said, and fails when a step that
//! must be refused is not, or is refused by another code. Three synthetic hospitals, a researcher, a committee of three of
//! whom two have one role, an access body. The data is declared synthetic, so that rho may be large enough to see one
//! patient leave.

mod stage;

use std::{path::PathBuf, time::Duration};

use chrono::{DateTime, Utc};
use miette::{IntoDiagnostic, Result, miette};

use self::stage::{Ends, Stage};
use crate::{
    generate::{self, generate},
    launch::Launcher,
    network::{Accept, Network, Rules, Setup, Site},
    study,
};

/// What the researcher wants to know.
const SQL: &str = "SELECT sex, count(*) AS patients FROM patient_summary \
                   WHERE diabetes_stage = 'mild' AND complications = 0 GROUP BY sex ORDER BY sex";
/// What one query may cost at each hospital, in micro-rho: the noise's standard deviation is a tenth of a patient.
const PER_QUERY: u64 = 50_000_000;
/// What the study may cost at each hospital.
const TOTAL: u64 = 200_000_000;
/// How long the last status lives whose successor the coordinator withholds.
const SHORT_LIFE: Duration = Duration::from_secs(60);

/// What the story shall do.
#[derive(Clone, Debug)]
pub struct Governance {
    /// Where everything goes; a fresh temporary folder if it is left out. It stays.
    pub dir: Option<PathBuf>,
    /// The seed of the hospitals.
    pub seed: u64,
    /// Patients over all hospitals.
    pub patients: u64,
}

/// Plays the story with parties that `launcher` starts, at the hour `now`.
///
/// # Errors
/// When a step does not end as it must.
pub async fn run(plan: &Governance, launcher: Launcher, now: DateTime<Utc>) -> Result<()> {
    let dir = match &plan.dir {
        Some(dir) => dir.clone(),
        None => tempfile::Builder::new().prefix("sekisho-governance-").tempdir().into_diagnostic()?.keep(),
    };
    let hospitals = dir.join("hospitals");
    let made = generate::Plan {
        hospitals: 3,
        patients: plan.patients,
        rows: plan.patients * 4,
        seed: plan.seed,
        as_of: now.date_naive(),
    };
    generate(&made, &hospitals, &|_, _| {}).into_diagnostic()?;
    let accept = [Accept::Automatic, Accept::ByHand, Accept::ByHand];
    let site = |(n, accept): (usize, Accept)| {
        let (name, folder) = (format!("hospital-{n}"), hospitals.join(format!("hospital-{n}")));
        let mapping = study::mapping(&name, &folder);
        Site { name, mapping, register: Some(folder.join("register.csv")), accept }
    };
    let setup = Setup {
        register_rule: "jp-ngmia".into(),
        budget: Some((2 * TOTAL, PER_QUERY)),
        rules: Rules {
            committee: [
                ("ethicist", "ethicist"),
                ("second-ethicist", "ethicist"),
                ("patients", "patient-representative"),
            ],
            distinct_roles: true,
            application_required: true,
        },
        ..Setup::new(dir.join("network"), (1..).zip(accept).map(site).collect(), study::SCHEMA)
    };
    let network = Network::build(&setup, launcher, &|text| eprintln!("{text}"))?;
    let patient = study::somebody(&hospitals.join("hospital-1"), now.date_naive()).await?;
    let mut stage = Stage::new(network);
    catalogue(&stage)?;
    apply(&stage, now)?;
    review(&stage)?;
    hospitals_decide(&stage)?;
    ask(&stage, patient)?;
    revoke(&mut stage)?;
    register(&stage, now)?;
    eprintln!("Everything of this story is in {0}; remove it with: rm -r {0}", dir.display());
    Ok(())
}

fn catalogue(stage: &Stage) -> Result<()> {
    stage.title("Three hospitals say what they hold", "三つの病院が目録を公開する");
    for name in ["hospital-1", "hospital-2", "hospital-3"] {
        let declaration = stage.network.node(name, &["catalogue", "template"])?;
        std::fs::write(stage.network.node_file(name, "data/dataset.catalogue.toml"), declaration).into_diagnostic()?;
        stage.node(name, &["catalogue", "publish"], Ends::Well)?;
    }
    stage.title("A researcher finds them, and asks what can be answered", "研究者が目録を探し、答えられるかを調べる");
    stage.until(&["catalogue", "search", "diabetes"], "hospital-3")?;
    stage.person("ada", &["catalogue", "search", "diabetes"], Ends::Well)?;
    let schema = stage.file("schema.dsse.json");
    let said = stage.person("ada", &["study", "check", "--schema", &schema, "--sql", SQL], Ends::Well)?;
    stage.says(&said, "hospital-3")
}

fn apply(stage: &Stage, now: DateTime<Utc>) -> Result<()> {
    stage.title("The researcher applies; the committee asks for a change", "申請し、審査会が修正を求める");
    let file = stage.file("application.toml");
    let key = stage.network.key("researcher");
    let write = |purpose: &str, benefit: &str| {
        std::fs::write(&file, application(stage, purpose, benefit, now)?).into_diagnostic()
    };
    write("insurance", "Premiums that fit the risk")?;
    stage.person("ada", &["application", "check", &file], Ends::Refused("purpose_prohibited"))?;
    write("scientific_research", "")?;
    stage.person("ada", &["application", "check", &file], Ends::Refused("application_incomplete"))?;
    write("scientific_research", "A trial for patients with mild diabetes")?;
    stage.person("ada", &["application", "check", &file], Ends::Well)?;
    stage.person("ada", &["application", "submit", &file, "--key", &key], Ends::Well)?;
    let ethicist = stage.network.key("ethicist");
    stage.person("ethicist", &["review", "show", ID, "--key", &ethicist], Ends::Well)?;
    let reasons = "Say how many patients the trial needs";
    let change = ["review", "request-changes", ID, "--reasons", reasons, "--key", &ethicist];
    stage.person("ethicist", &change, Ends::Well)?;
    write("scientific_research", "A trial of 200 patients with mild diabetes")?;
    stage.person("ada", &["application", "submit", &file, "--key", &key], Ends::Well)?;
    stage.person("ethicist", &["review", "complete", ID, "--key", &ethicist], Ends::Well).map(drop)
}

/// The application's id, and the permit's.
const ID: &str = "diabetes-trial";

fn application(stage: &Stage, purpose: &str, benefit: &str, now: DateTime<Utc>) -> Result<String> {
    let day = |ahead: i64| (now + chrono::Duration::days(ahead)).date_naive();
    Ok(format!(
        r#"id = "{ID}"
basis = "EHDS-69"
principal_investigator = "Dr. Hanako Synthetic"
purposes = ["{purpose}"]
use_description = "Feasibility of a trial: patients with mild diabetes and no complications"
expected_benefit = "{benefit}"
study_id = "{ID}"
schema = "schema.dsse.json"
level = "statistics"
level_justification = "Counts answer the question"
safeguards = "Keys on two machines; nobody tries to re-identify"
stigma_declaration = "No group but the two sexes is named"
prohibited_uses_acknowledged = true
result_expected = "A table of counts"
statistic_content = "Patients by sex"
statistics = ["count", "count_distinct"]
release_kinds = ["noised"]
disclosure = "jp-ndb"

[applicant]
name = "Synthetic University"
functions = "Research on diabetes"
sector = "academic"
country = "JP"

[[people]]
id = "ada"
role = "analyst"
key = "{key}"
training = "data protection, 2026"

[[data]]
table = "patient_summary"
columns = ["sex", "diabetes_stage", "complications"]
holder_nodes = ["hospital-1", "hospital-2", "hospital-3"]
dataset = "patients' summaries"
categories = ["electronic health records"]
time_range = "2020 to 2026"
geography = "JP"

[period]
from = "{from}"
to = "{to}"
justification = "One year of planning"

[dp]
rows_per_patient = 1
groups_per_patient = 1
sites_per_patient = 2
micro_rho_per_query = {PER_QUERY}
micro_rho_total = {TOTAL}
delta_for_reports = "1e-6"

[[queries]]
sql = "{SQL}"
max_runs = 4
"#,
        key = stage.network.public_key("researcher")?,
        from = day(-1),
        to = day(364),
    ))
}

fn review(stage: &Stage) -> Result<()> {
    stage.title("Two of three sign, and not two of one role", "三人のうち二人が署名する(同じ役割は一つと数える)");
    let (overrides, permit) = (stage.file("permit.toml"), stage.file("permit.dsse.json"));
    let text =
        "issuer = \"Synthetic access body\"\n[decision]\nreasons = \"Of use to patients, and no cell shows anybody\"\n";
    std::fs::write(&overrides, text).into_diagnostic()?;
    let key = |name: &str| stage.network.key(name);
    let ethicist = key("ethicist");
    let draft = ["permit", "new", "--application", ID, "--from", &overrides, "--key", &ethicist, "--out", &permit];
    stage.person("ethicist", &draft, Ends::Well)?;
    let approve = |who: &str| {
        let (reasons, key) = ("In the public interest", key(who));
        let args = ["review", "approve", ID, "--permit", &permit, "--reasons", reasons, "--key", &key];
        stage.person(who, &args, Ends::Well).map(drop)
    };
    approve("ethicist")?;
    approve("second-ethicist")?;
    stage.person("ethicist", &["permit", "submit", &permit], Ends::Refused("quorum_not_met"))?;
    approve("patients")?;
    let said = stage.person("patients", &["permit", "submit", &permit], Ends::Incomplete)?;
    stage.says(&said, "permit_waiting")
}

fn hospitals_decide(stage: &Stage) -> Result<()> {
    stage.title(
        "One hospital accepted by policy; one accepts by hand, one refuses",
        "一つは方針により自動で、一つは人が受け入れ、一つは断る",
    );
    let said = stage.node("hospital-1", &["permits", "list"], Ends::Well)?;
    stage.says(&said, "policy")?;
    let key = stage.network.key("researcher");
    let early = ["query", "--permit", ID, "--sql", SQL, "--key", &key, "--holders", "hospital-2", "--dry-run"];
    stage.person("ada", &early, Ends::Refused("permit_waiting"))?;
    stage.node("hospital-2", &["permits", "accept", ID, "--reason", "Board of 20 November"], Ends::Well)?;
    let no = ["permits", "refuse", ID, "--reason", "We run a trial of our own on these patients"];
    stage.node("hospital-3", &no, Ends::Well)?;
    let dry = ["query", "--permit", ID, "--sql", SQL, "--key", &key, "--dry-run", "--output", "json"];
    stage.until_code(&dry, "hospital-3", "permit_refused")
}

fn ask(stage: &Stage, patient: i64) -> Result<()> {
    stage.title("Queries run over the two; a patient says no", "二つの病院に照会し、患者が拒否する");
    let key = stage.network.key("researcher");
    let asked = |run: &str| {
        let query = ["query", "--permit", ID, "--sql", SQL, "--key", &key, "--holders", "hospital-1,hospital-2"];
        let args = [&query[..], &["--run", run]].concat();
        stage.person("ada", &args, Ends::Well)?;
        let json = stage.network.sekisho(&[&args[..], &["--output", "json"]].concat())?;
        stage::sum(&json, "patients")
    };
    let before = asked("1")?;
    let opt_out = ["patients", "opt-out", &patient.to_string(), "--said-by", "self", "--by", "front-desk"];
    stage.node("hospital-1", &opt_out, Ends::Well)?;
    let (again, after) = (asked("1")?, asked("2")?);
    stage.note(&format!("run 1: {before:.0} patients, served again: {again:.0}; run 2: {after:.0}"));
    // The noise of each sum has a standard deviation below 0.3.
    if (before - again).abs() > 1e-9 || (before - after).round() != 1.0 {
        return Err(miette!("run 1 counted {before}, again {again}, run 2 {after}: one patient said no between them"));
    }
    Ok(())
}

fn revoke(stage: &mut Stage) -> Result<()> {
    stage.title("The permit is revoked while hospital-2 is away", "hospital-2 の不在中に許可が取り消される");
    let (governance, key) = (stage.network.key("governance"), stage.network.key("researcher"));
    let lives = format!("{}s", SHORT_LIFE.as_secs());
    stage.person("governance", &["status", "refresh", "--valid-for", &lives, "--key", &governance], Ends::Well)?;
    stage.network.wait_connected(3)?;
    let until = std::time::Instant::now() + SHORT_LIFE;
    stage.network.kill_node("hospital-2");
    stage.network.keep_coordinator_state("before")?;
    stage.network.wait_connected(2)?;
    let reason = "The ethics committee withdrew its opinion";
    stage.person("governance", &["permit", "revoke", ID, "--reason", reason, "--key", &governance], Ends::Well)?;
    let query = ["query", "--permit", ID, "--sql", SQL, "--key", &key, "--holders", "hospital-1,hospital-2"];
    stage.person("ada", &query, Ends::Refused("permit_revoked"))?;

    stage.title("A coordinator withholds the news", "コーディネータが取消を隠す");
    stage.network.keep_coordinator_state("after")?;
    stage.network.swap_coordinator_state("before")?;
    stage.network.start_node("hospital-2")?;
    stage.until_connected(&["hospital-1", "hospital-2"])?;
    stage.note(
        "The coordinator runs as if the permit had never been revoked; hospital-1 has seen it, hospital-2 has not.",
    );
    let said = stage.person("ada", &query, Ends::Incomplete)?;
    stage.says(&said, "permit_revoked")?;
    stage.note("The news reaches hospital-2, and the coordinator denies it again: the hospitals know better.");
    stage.network.swap_coordinator_state("after")?;
    stage.network.wait_connected(3)?;
    stage.network.swap_coordinator_state("before")?;
    stage.until_connected(&["hospital-1", "hospital-2"])?;
    let said = stage.person("ada", &query, Ends::Refused("permit_revoked"))?;
    stage.says(&said, "hospital-2: permit diabetes-trial was revoked")?;
    let left = until.saturating_duration_since(std::time::Instant::now());
    stage.note(&format!("Nothing is answered under an expired status: {} s later,", left.as_secs()));
    std::thread::sleep(left + Duration::from_secs(1));
    stage.person("ada", &query, Ends::Refused("stale_status"))?;
    stage.note("The coordinator tells the truth again.");
    stage.network.swap_coordinator_state("after")?;
    stage.network.wait_connected(3)?;
    stage.person("ada", &["network", "show"], Ends::Well)?;
    stage.person("ada", &query, Ends::Refused("permit_revoked")).map(drop)
}

fn register(stage: &Stage, now: DateTime<Utc>) -> Result<()> {
    stage.title("The public register shows all of it, and the operator meters it", "公開の利用登録簿と従量の集計");
    let said = stage.person("anybody", &["register", "export", "--study", ID, "--lang", "ja"], Ends::Well)?;
    stage.says(&said, "hospital-3")?;
    let said = stage.person(
        "anybody",
        &["register", "export", "--study", ID, "--lang", "en", "--output", "json"],
        Ends::Well,
    )?;
    for part in ["permit_refused", "We run a trial of our own", "The ethics committee withdrew its opinion", "count(*)"]
    {
        stage.says(&said, part)?;
    }
    let month = now.format("%Y-%m").to_string();
    let said = stage.operator(&["metering", "export", "--period", &month], Ends::Well)?;
    stage.says(&said, "small")
}
