//! What an operator does with the hospital's own policy: check it, test it, and ask it why. Nothing is written or sent.

mod cases;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use miette::{IntoDiagnostic, Result, WrapErr, miette};
use sekisho_aggregation::plan::PrivatePlan;
use sekisho_node_config::NodeConfig;
use sekisho_protocol::{
    dsse::{Document, Envelope},
    permit::{AuthorisedPerson, Permit},
    query::{Query, Terms},
    units::MicroRho,
};
use serde_json::{Value, json};

use super::{
    Output, configured,
    held::{Held, facts, held, holder},
    permits::Desk,
    table,
};
use crate::policy::{Asked, DataFacts, Finding, Level, Person, Policy, Rule};

/// The most bytes of a file that is named on the command line.
const MAX_FILE: u64 = 4 << 20;

#[derive(clap::Subcommand)]
pub(super) enum Command {
    /// Reads the policy as the node does at its start: syntax, schema, names of tables and columns.
    #[command(after_help = "Example: sekisho-node policy check --config node.toml")]
    Check {
        /// Another file than the one that the configuration names.
        file: Option<PathBuf>,
        /// The configuration file.
        #[arg(long)]
        config: PathBuf,
        /// How to print.
        #[arg(long, value_enum, default_value_t = Output::Table)]
        output: Output,
    },
    /// Runs the cases of a TOML file against the policy; a case that fails makes the exit code 1.
    #[command(
        after_help = "Example: sekisho-node policy test cases.toml --config node.toml\n\nA case of the file:\n  \
        [[case]]\n  name = \"nobody reads postcodes\"\n  action = \"count\"\n  resource = \"stay.postcode\"\n  \
        expect = \"deny\"\n  rule = \"no-postcode\""
    )]
    Test {
        /// The cases.
        cases: PathBuf,
        /// Another policy than the one that the configuration names.
        #[arg(long)]
        policy: Option<PathBuf>,
        /// The configuration file.
        #[arg(long)]
        config: PathBuf,
        /// How to print.
        #[arg(long, value_enum, default_value_t = Output::Table)]
        output: Output,
    },
    /// Says which rules decide about a query, for each statistic on each table and column; without a query, about a permit.
    #[command(
        after_help = "Example: sekisho-node policy explain --permit diabetes-trial --sql \"SELECT count(*) FROM stay\" \\\n  --config node.toml"
    )]
    Explain(Explain),
}

#[derive(clap::Args)]
pub(super) struct Explain {
    /// The permit: a signed file, or one that arrived here by id, ID/VERSION or digest. With --query it may be left out.
    #[arg(long, required_unless_present = "query")]
    permit: Option<String>,
    /// The SQL of a query.
    #[arg(long, conflicts_with = "query")]
    sql: Option<String>,
    /// A signed query file.
    #[arg(long)]
    query: Option<PathBuf>,
    /// Who asks, by the id in the permit; the first of its people if it is left out.
    #[arg(long)]
    person: Option<String>,
    /// What the query costs; the permit's limit if it is left out.
    #[arg(long)]
    micro_rho: Option<u64>,
    /// The configuration file.
    #[arg(long)]
    config: PathBuf,
    /// How to print.
    #[arg(long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

/// The policy of `config`, checked against its data sets.
pub(super) fn configured_policy(config: &NodeConfig, sets: &[Held]) -> Result<Policy> {
    policy_of(&config.policy, sets)
}

fn policy_of(path: &Path, sets: &[Held]) -> Result<Policy> {
    let policy = Policy::load(path).into_diagnostic()?;
    policy.check_names(&facts(sets)).into_diagnostic()?;
    Ok(policy)
}

/// Runs a command on the policy.
pub(super) async fn policy(command: Command) -> Result<()> {
    match command {
        Command::Check { file, config, output } => {
            let config = configured(&config)?;
            check(file.as_deref().unwrap_or(&config.policy), &held(&config).await?, output)
        }
        Command::Test { cases, policy, config, output } => {
            let config = configured(&config)?;
            let sets = held(&config).await?;
            let policy = policy_of(policy.as_deref().unwrap_or(&config.policy), &sets)?;
            cases::run(&cases, &holder(&config, &policy, &sets), output)
        }
        Command::Explain(args) => explain(&args).await,
    }
}

fn check(path: &Path, sets: &[Held], output: Output) -> Result<()> {
    let policy = policy_of(path, sets)?;
    for warning in policy.warnings() {
        eprintln!("{warning}");
    }
    let effect = |rule: &Rule| if rule.forbids { "forbid" } else { "permit" };
    let rules = policy.rules();
    match output {
        Output::Json => {
            let rules = rules.iter().map(|r| json!({"id": r.id, "line": r.line, "effect": effect(r)}));
            println!("{}", json!({"file": path, "rules": rules.collect::<Vec<_>>()}));
        }
        Output::Table => {
            let row = |r: &&Rule| vec![r.line.to_string(), effect(r).into(), r.id.clone().unwrap_or_default()];
            println!("{}", table(["line", "effect", "id"], rules.iter().map(row)));
            println!("{}: {} rules, no mistake found / 誤りはありません", path.display(), rules.len());
        }
    }
    Ok(())
}

/// Reads a file of at most [`MAX_FILE`] bytes.
fn read(path: &Path) -> Result<Vec<u8>> {
    use std::io::Read;
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).into_diagnostic().wrap_err_with(|| path.display().to_string())?;
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).into_diagnostic()?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(miette!("{} has more than {MAX_FILE} bytes", path.display()));
    }
    Ok(bytes)
}

/// A document of a signed file. Whose signatures it has does not matter here: nothing is answered.
fn document<D: Document>(path: &Path) -> Result<(Envelope, D)> {
    let what = || path.display().to_string();
    let envelope = Envelope::from_json::<D>(&read(path)?).into_diagnostic().wrap_err_with(what)?;
    let (document, _) = envelope.peek::<D>().into_diagnostic().wrap_err_with(what)?;
    Ok((envelope, document))
}

/// A query as the policy sees it: `sql` under `permit`, planned over `data`.
fn asked(
    permit: &Permit,
    person: &AuthorisedPerson,
    (sql, micro_rho, terms): (&str, MicroRho, &Terms),
    data: DataFacts<'_>,
) -> Result<Asked> {
    let plan = PrivatePlan::analyse_with(sql, data.schema, permit, micro_rho, terms);
    let plan = plan.into_diagnostic().wrap_err("the permit does not allow the query, before any policy")?;
    let person = Person { id: person.id.clone(), role: person.role.clone() };
    Ok(Asked::new(permit, person, &plan, terms.atto_delta, data))
}

/// The person of the permit whom `id` names, or the first.
fn person<'a>(permit: &'a Permit, id: Option<&str>) -> Result<&'a AuthorisedPerson> {
    let mut people = permit.authorised_persons.iter();
    let found = people.find(|p| id.is_none_or(|id| p.id == id));
    found.ok_or_else(|| miette!("the permit does not authorise {}", id.unwrap_or("anybody")))
}

async fn explain(args: &Explain) -> Result<()> {
    let config = configured(&args.config)?;
    let sets = held(&config).await?;
    let policy = configured_policy(&config, &sets)?;
    let holder = holder(&config, &policy, &sets);
    let query = args.query.as_deref().map(document::<Query>).transpose()?;
    let permit = match (&args.permit, &query) {
        (Some(name), _) if Path::new(name).is_file() => document::<Permit>(Path::new(name))?.1,
        (Some(name), _) => Desk::open(&args.config).await?.permit(name).await?,
        (None, Some((_, query))) => Desk::open(&args.config).await?.permit(&query.permit.to_string()).await?,
        (None, None) => return Err(miette!("name a permit with --permit")),
    };
    let data = holder.data_for(&permit).into_diagnostic()?;
    let of_query = match (&query, &args.sql) {
        (Some((envelope, query)), _) => {
            let signer =
                permit.authorised_persons.iter().find(|p| envelope.key_ids().any(|id| id == p.key.fingerprint()));
            let signer = signer.ok_or_else(|| miette!("no signature of the query is by a person of the permit"))?;
            Some(asked(&permit, signer, (&query.sql, query.micro_rho, &query.terms), data)?)
        }
        (None, Some(sql)) => {
            let micro_rho = match args.micro_rho {
                Some(amount) => amount.try_into().into_diagnostic()?,
                None => permit.dp.micro_rho_per_query,
            };
            let person = person(&permit, args.person.as_deref())?;
            Some(asked(&permit, person, (sql, micro_rho, &Terms::default()), data)?)
        }
        (None, None) => None,
    };
    let (verdict, findings) = match &of_query {
        Some(asked) => {
            let findings = policy.explain(asked).into_diagnostic()?;
            (if findings.iter().all(|f| f.allowed) { "allowed" } else { "denied" }, findings)
        }
        None => {
            let (level, findings) = policy.answer(&holder.offered(&permit).into_diagnostic()?).into_diagnostic()?;
            (level_name(level), findings)
        }
    };
    match args.output {
        Output::Json => {
            println!("{}", json!({"decision": verdict, "findings": findings.iter().map(as_json).collect::<Vec<_>>()}))
        }
        Output::Table => {
            let row = |f: &Finding| {
                let decision = if f.allowed { "allowed" } else { "denied" };
                vec![f.action.into(), f.resource.clone(), decision.into(), because(f)]
            };
            println!("{}", table(["action", "on", "decision", "because"], findings.iter().map(row)));
            println!("{verdict}, says {}", config.policy.display());
        }
    }
    Ok(())
}

fn level_name(level: Level) -> &'static str {
    match level {
        Level::AtOnce => "automatic",
        Level::ByHand => "by-hand",
        Level::Refused => "refuse",
    }
}

/// Why, in plain words.
fn because(finding: &Finding) -> String {
    let list = |rules: &[Rule]| rules.iter().map(Rule::to_string).collect::<Vec<_>>().join(", ");
    if !finding.failed.is_empty() {
        return format!("a rule failed, and that denies: {}", list(&finding.failed));
    }
    match finding.rules.first() {
        None => "no rule permits it".into(),
        Some(rule) if rule.forbids => format!("forbidden by {}", list(&finding.rules)),
        Some(_) => format!("permitted by {}", list(&finding.rules)),
    }
}

fn as_json(finding: &Finding) -> Value {
    let rules = |rules: &[Rule]| rules.iter().map(|r| json!({"id": r.id, "line": r.line})).collect::<Vec<_>>();
    json!({
        "action": finding.action, "resource": finding.resource, "allowed": finding.allowed,
        "rules": rules(&finding.rules), "failed": rules(&finding.failed),
    })
}

/// The ids of the rules that decided: of what is denied where something is, of everything otherwise.
fn deciding(findings: &[Finding]) -> BTreeSet<String> {
    let denied = findings.iter().any(|f| !f.allowed);
    let those = findings.iter().filter(|f| !denied || !f.allowed);
    those.flat_map(|f| f.rules.iter().chain(&f.failed)).filter_map(|rule| rule.id.clone()).collect()
}
