//! The command `sekisho-node`: what a hospital's operator does.
//!
//! Data goes to stdout, progress and logs to stderr. Exit codes: 0 done, 1 failed, 2 wrong usage. What a command
//! shows about patients stays on the hospital's own console.

mod alerts;
mod budget;
mod catalogue;
mod console;
mod data;
mod exact;
mod held;
mod inspect;
mod local;
mod log;
mod patients;
mod permits;
mod policy;
mod progress;
mod suspension;
mod trust;

use std::{
    ffi::OsString,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use clap::{Parser, Subcommand, ValueEnum};
use miette::{Context, IntoDiagnostic, Result, miette};
use sekisho_node_config::{Coordinator, LogFormat, NodeConfig, TemplateValues, load, template};
use sekisho_protocol::{
    committee::CommitteeMember,
    key_file,
    keys::{PublicKey, SecretKey},
    orders::Regulator,
    roster::{Member, Role, is_name},
    transport::peer_id_of_seed,
};

use crate::{
    daemon::{self, SystemClock},
    data::snapshot::Progress,
    hooks::Hooks,
    ledger::{Caps, Ledger},
    policy::default_text,
    seeds::SeedKey,
    store::Store,
};

/// The stack of each of the runtime's threads, in bytes.
const STACK: usize = 16 << 20;

/// A hospital's node of Sekisho: holds its data, and answers approved queries with noised statistics only.
#[derive(Parser)]
#[command(name = "sekisho-node", version, after_help = "Example: sekisho-node run --config /etc/sekisho/node.toml")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Makes keys, a commented configuration, a commented policy and member.json in a new folder.
    #[command(after_help = "Example: sekisho-node init /srv/sekisho --name hospital-1 \\\n  \
        --coordinator /dns4/hub.example/tcp/4001 --coordinator-peer 12D3Koo… --governance BASE64 \\\n  \
        --quorum 2 --committee tanaka:ethicist:BASE64 --committee sato:patient-representative:BASE64 --dataset data/dataset.toml")]
    Init(Box<Init>),
    /// Runs the node: dials the coordinator and answers.
    #[command(after_help = "Example: sekisho-node run --config /srv/sekisho/node.toml")]
    Run {
        /// The configuration file.
        #[arg(long)]
        config: PathBuf,
    },
    /// The hospital's catalogue: what it declares and counts of its data sets.
    #[command(subcommand)]
    Catalogue(catalogue::Command),
    /// Snapshots of the hospital's data sets.
    #[command(subcommand)]
    Data(data::Data),
    /// The patient register: notices, opt-outs, deaths.
    #[command(subcommand)]
    Patients(patients::Patients),
    /// The endpoint for the hospital's own systems: its tokens.
    #[command(subcommand)]
    Local(local::Local),
    /// The console, pages for the hospital's operators: its tokens.
    #[command(subcommand)]
    Console(console::Console),
    /// The privacy ledger: rho and delta, what was spent, what is left.
    #[command(
        visible_alias = "ledger",
        after_help = "Example: sekisho-node budget --config /srv/sekisho/node.toml --output json"
    )]
    Budget {
        /// The configuration file.
        #[arg(long)]
        config: PathBuf,
        /// How to print.
        #[arg(long, value_enum, default_value_t = Output::Table)]
        output: Output,
    },
    /// Exact results that wait for a person here: look at them, let them out or refuse them.
    #[command(subcommand)]
    Exact(exact::Exact),
    /// For an inspector: the charged runs, and whether one can be made again as it was released.
    #[command(subcommand)]
    Inspect(inspect::Inspect),
    /// Alerts: what the node found out of the ordinary.
    #[command(subcommand)]
    Alerts(alerts::Command),
    /// The hospital's log: what the node decided, charged and answered.
    #[command(subcommand)]
    Log(log::Command),
    /// Permits: what the hospital answered, and what a person decides.
    #[command(subcommand)]
    Permits(permits::Permits),
    /// The hospital's own policy: which permits it accepts and which queries it answers.
    #[command(subcommand)]
    Policy(policy::Command),
    /// Whose signatures count: governance key, committee, regulators.
    #[command(subcommand)]
    Trust(trust::Trust),
    /// Regulators' orders: what is suspended by law.
    #[command(subcommand)]
    Orders(trust::OrdersCommand),
    /// The hospital's own keys.
    #[command(subcommand)]
    Keys(trust::Keys),
    /// Answers a study, or all of them, no more; it acts at once on whatever is not charged yet.
    #[command(
        after_help = "Example: sekisho-node suspend diabetes-trial --reason \"under review\" --config /srv/sekisho/node.toml"
    )]
    Suspend(suspension::Suspend),
    /// Answers a suspended study again, or one that was stopped after three queries without an answer.
    #[command(after_help = "Example: sekisho-node resume diabetes-trial --config /srv/sekisho/node.toml")]
    Resume(suspension::Resume),
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Table,
    Json,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Accept {
    ByHand,
    Automatic,
}

#[derive(clap::Args)]
struct Init {
    /// The folder; it must not exist, or be empty.
    dir: PathBuf,
    /// The hospital's name on the roster: lower-case letters, digits, hyphens.
    #[arg(long)]
    name: String,
    /// The coordinator's address as a multiaddr; /quic-v1 chooses QUIC.
    #[arg(long)]
    coordinator: String,
    /// The coordinator's peer id.
    #[arg(long)]
    coordinator_peer: String,
    /// The governance key, base64.
    #[arg(long)]
    governance: PublicKey,
    /// How many of the committee make a permit.
    #[arg(long, default_value_t = 2)]
    quorum: usize,
    /// A committee member as NAME:ROLE:KEY; repeat it.
    #[arg(long, required = true, value_name = "NAME:ROLE:KEY")]
    committee: Vec<CommitteeMember>,
    /// A role that must be among the signers of a permit; repeat it.
    #[arg(long, value_name = "ROLE")]
    required_role: Vec<String>,
    /// Two signers of one role count once.
    #[arg(long)]
    distinct_roles: bool,
    /// A regulator whose orders to suspend are obeyed, as NAME:KEY; repeat it.
    #[arg(long, value_name = "NAME:KEY")]
    regulator: Vec<Regulator>,
    /// A data set's mapping file, relative to the folder; repeat it.
    #[arg(long)]
    dataset: Vec<String>,
    /// Which patients are left out: jp-ngmia or eu-ehds.
    #[arg(long, default_value = "jp-ngmia")]
    register_rule: String,
    /// How permits are accepted: by a person, or at once by policy. The new policy.cedar says so.
    #[arg(long, value_enum, default_value_t = Accept::ByHand)]
    accept: Accept,
    /// The lifetime cap and the cap of one query in micro-rho, as LIFETIME:QUERY.
    #[arg(long, value_parser = budget)]
    budget: Option<(u64, u64)>,
}

fn budget(text: &str) -> Result<(u64, u64), String> {
    let parts = text.split_once(':').ok_or("write LIFETIME:QUERY in micro-rho")?;
    let number = |t: &str| t.parse().map_err(|_| format!("{t} is no number of micro-rho"));
    Ok((number(parts.0)?, number(parts.1)?))
}

/// Runs `sekisho-node` with `args`, of which the first is the program's name.
pub fn main(args: impl IntoIterator<Item = OsString>, hooks: Hooks) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no errors; clap chooses the stream. Nothing can be done if it is closed.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    // Hostile SQL nests: its analysis has a deep stack.
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().thread_stack_size(STACK).build();
    let runtime = runtime.into_diagnostic();
    match runtime.and_then(|runtime| runtime.block_on(command(cli.command, hooks))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(report) => {
            eprintln!("error: {report:?}");
            ExitCode::FAILURE
        }
    }
}

async fn command(command: Command, hooks: Hooks) -> Result<()> {
    let clock = SystemClock;
    match command {
        Command::Init(args) => init(&args),
        Command::Run { config } => {
            let config = configured(&config)?;
            logging(&config);
            let ready = |peer| println!("node {peer}");
            let screen = progress::Screen::new();
            let report = |progress: Progress<'_>| screen.show(&progress);
            daemon::run(config, &report, Arc::new(clock), hooks, ready).await.into_diagnostic()
        }
        Command::Catalogue(command) => catalogue::run(command, clock, hooks).await,
        Command::Data(command) => data::data(command, &clock, &hooks).await,
        Command::Patients(patients) => patients::patients(patients, &clock).await,
        Command::Local(command) => local::local(&command),
        Command::Console(command) => console::console(command, &clock),
        Command::Budget { config, output } => budget::budget(&config, output, &clock).await,
        Command::Exact(command) => exact::exact(command, clock, hooks).await,
        Command::Inspect(command) => inspect::inspect(command, &clock).await,
        Command::Alerts(command) => alerts::alerts(command).await,
        Command::Log(command) => log::log(command, &SystemClock).await,
        Command::Permits(command) => permits::permits(command, &clock).await,
        Command::Policy(command) => policy::policy(command).await,
        Command::Suspend(args) => suspension::suspend(&args, &clock).await,
        Command::Resume(args) => suspension::resume(&args, &clock).await,
        Command::Trust(command) => trust::trust(command, &clock).await,
        Command::Orders(command) => trust::orders(command, &clock).await,
        Command::Keys(command) => trust::keys(&command),
    }
}

fn configured(path: &Path) -> Result<NodeConfig> {
    load(path).into_diagnostic().wrap_err_with(|| format!("the configuration {}", path.display()))
}

/// The keys that may have signed the schemas of the configured mappings. It makes no database: one that is lost must be
/// seen to be lost.
async fn schema_keys(config: &NodeConfig) -> Result<Vec<PublicKey>> {
    if !daemon::database(config).exists() {
        return Ok(vec![config.trust.governance_key]);
    }
    daemon::documents(config).await.into_diagnostic()?.schema_keys().await.into_diagnostic()
}

async fn opened(path: &Path) -> Result<(NodeConfig, Ledger, Store)> {
    let config = configured(path)?;
    let store = daemon::store(&config).await.into_diagnostic()?;
    let ledger = Ledger::new(store.clone(), Caps::from(&config.budget));
    Ok((config, ledger, store))
}

fn logging(config: &NodeConfig) {
    let filter = tracing_subscriber::EnvFilter::new(format!(
        "warn,sekisho_node={0},sekisho_protocol={0}",
        config.log.level.as_str()
    ));
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A second subscriber in one process is refused; the first one stays.
    let _ = match config.log.format {
        LogFormat::Text => logs.with_ansi(false).try_init(),
        LogFormat::Json => logs.json().try_init(),
    };
}

/// A table with a header.
fn table<const N: usize>(header: [&str; N], rows: impl IntoIterator<Item = Vec<String>>) -> comfy_table::Table {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::UTF8_BORDERS_ONLY).set_header(header);
    table.add_rows(rows);
    table
}

fn init(args: &Init) -> Result<()> {
    if !is_name(&args.name) {
        return Err(miette!("--name is 1-64 lower-case letters, digits and hyphens"));
    }
    let dir = &args.dir;
    if dir.read_dir().is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(miette!("{} is not empty; name a new folder", dir.display()));
    }
    let keys = dir.join("keys");
    std::fs::create_dir_all(dir).into_diagnostic()?;
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o700)).into_diagnostic()?;
    for folder in [&keys, &dir.join("state")] {
        daemon::private_folder(folder).into_diagnostic()?;
    }
    let (transport, signing) = (SecretKey::generate(&mut rand::rng()), SecretKey::generate(&mut rand::rng()));
    key_file::write(&keys.join("transport.pem"), &transport).into_diagnostic()?;
    key_file::write(&keys.join("signing.pem"), &signing).into_diagnostic()?;
    SeedKey::make(&SeedKey::path_beside(&keys.join("signing.pem"))).into_diagnostic()?;
    let peer_id = peer_id_of_seed(&transport.seed()).into_diagnostic()?.to_string();
    let member = Member { name: args.name.clone(), role: Role::Node, peer_id, signing_key: signing.public() };
    let text = template(&TemplateValues {
        name: args.name.clone(),
        state_dir: "state".into(),
        transport_key: "keys/transport.pem".into(),
        signing_key: "keys/signing.pem".into(),
        coordinator: Coordinator { address: args.coordinator.clone(), peer_id: args.coordinator_peer.clone() },
        governance_key: args.governance,
        committee_quorum: args.quorum,
        committee: args.committee.clone(),
        required_roles: args.required_role.clone(),
        distinct_roles: args.distinct_roles,
        regulators: args.regulator.clone(),
        register_rule: args.register_rule.clone(),
        datasets: args.dataset.clone(),
        budget: args.budget,
    });
    std::fs::write(dir.join("node.toml"), text).into_diagnostic()?;
    let policy = default_text(args.accept == Accept::Automatic);
    std::fs::write(dir.join("policy.cedar"), policy).into_diagnostic()?;
    std::fs::write(dir.join("member.json"), serde_json::to_vec_pretty(&member).into_diagnostic()?).into_diagnostic()?;
    load(&dir.join("node.toml")).into_diagnostic().wrap_err("the arguments make no valid configuration")?;
    println!("{}", dir.join("member.json").display());
    eprintln!("Hand member.json to the access body, which adds it with `sekisho roster add`.");
    eprintln!("member.json を運営機関に渡してください(`sekisho roster add` で名簿に登録されます)。");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_is_shown_under_its_former_name_too() {
        for name in ["budget", "ledger"] {
            let cli = Cli::try_parse_from(["sekisho-node", name, "--config", "node.toml"]).unwrap();
            assert!(matches!(cli.command, Command::Budget { .. }), "{name}");
        }
    }

    #[test]
    fn a_new_folder_is_its_owners_alone() {
        let dir = tempfile::tempdir().unwrap();
        let node = dir.path().join("made/node");
        let key = SecretKey::generate(&mut rand::rng());
        let (peer, public) = (peer_id_of_seed(&key.seed()).unwrap().to_string(), key.public().to_string());
        let member = SecretKey::generate(&mut rand::rng()).public();
        let args = ["sekisho-node", "init", node.to_str().unwrap(), "--name", "west"];
        let trust = ["--coordinator", "/ip4/127.0.0.1/tcp/1", "--coordinator-peer", &peer, "--governance", &public];
        let committee = ["--quorum", "1", "--committee", &format!("m:ethics:{member}")];
        let args = args.into_iter().chain(trust).chain(committee).map(OsString::from);
        assert_eq!(main(args, Hooks::default()), ExitCode::SUCCESS);
        for folder in ["", "keys", "state"] {
            let mode = std::fs::metadata(node.join(folder)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o700, "{folder}");
        }
    }
}
