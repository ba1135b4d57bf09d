//! The configuration after every key was checked.

mod local;
mod register;
#[cfg(test)]
mod tests;
mod watch;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    time::Duration,
};

use config::{Config, File, FileFormat};
use sekisho_protocol::{
    committee::{Committee, CommitteeMember},
    keys::PublicKey,
    orders::{MAX_REGULATORS, Regulator},
    permit::OptOut,
    roster::is_name,
    units::{AttoDelta, DeltaTooLarge, MicroRho},
};

pub use self::{
    local::{Console, Local},
    watch::{BudgetRule, CountRule, Watch},
};

use self::register::opt_out;
use crate::file::{
    BudgetFile, CoordinatorFile, ExactFile, LimitsFile, LogFile, NodeConfigFile, SnapshotsFile, TrustFile,
};

/// Why a configuration is not taken.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read, is no TOML, lacks a key, or has one that is unknown.
    #[error("{path}: {reason}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong, with the key's name.
        reason: String,
    },
    /// A key has a value that it cannot have.
    #[error("`{key}`: {rule}")]
    Key {
        /// The key, with its tables.
        key: String,
        /// What to write.
        rule: String,
    },
}

/// A node's configuration.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// The file that it was read from; empty when it was read from none.
    pub file: PathBuf,
    /// The hospital's name on the roster.
    pub name: String,
    /// Where the node keeps its state.
    pub state_dir: PathBuf,
    /// The file of the transport key.
    pub transport_key: PathBuf,
    /// The file of the signing key.
    pub signing_key: PathBuf,
    /// Whom the node connects to.
    pub coordinator: Coordinator,
    /// Whose signatures count.
    pub trust: Trust,
    /// What may be spent on these patients.
    pub budget: Budget,
    /// The file of the hospital's own policy.
    pub policy: PathBuf,
    /// The hospital's own rule on opt-outs; it holds beside the permit's.
    pub register: OptOut,
    /// Exact results, if the hospital gives any.
    pub exact: Option<Exact>,
    /// Where the hospital's own systems reach the node, if they do.
    pub local: Option<Local>,
    /// Where a person looks after the node in a browser, if it is to be so.
    pub console: Option<Console>,
    /// The mapping files of the data sets.
    pub datasets: Vec<PathBuf>,
    /// How snapshots are taken and kept.
    pub snapshots: Snapshots,
    /// The bounds of a query.
    pub limits: Limits,
    /// Metrics and health, and what raises an alert.
    pub watch: Watch,
    /// How the node logs.
    pub log: Log,
}

/// Whom the node connects to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Coordinator {
    /// A multiaddr, as text: it ends in `/tcp/<port>` or `/udp/<port>/quic-v1`.
    pub address: String,
    /// The libp2p peer id that must answer there.
    pub peer_id: String,
}

/// Whose signatures count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trust {
    /// Signs roster and status.
    pub governance_key: PublicKey,
    /// The first committee; a later one is signed by the quorum of the one before.
    pub committee: Committee,
    /// Whose orders are obeyed.
    pub regulators: Vec<Regulator>,
}

/// What may be spent on these patients. The compiled-in ceilings hold all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// By all studies together, ever, in micro-rho.
    pub lifetime: MicroRho,
    /// By one query, in micro-rho.
    pub per_query: MicroRho,
    /// By all studies together in any period of so many days; without it only the other caps hold.
    pub window: Option<Window>,
    /// By all studies together, ever, in delta; with zero no query may have private group keys.
    pub lifetime_delta: AttoDelta,
    /// By one query, in delta.
    pub delta_per_query: AttoDelta,
}

/// A cap on what is spent in any period of so many days. It only tightens: no other cap is raised by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// How many days of 24 hours, from 1 to 3660.
    pub days: u32,
    /// What may be spent in them, in micro-rho.
    pub micro_rho: MicroRho,
}

/// Exact results under disclosure rules, each looked at by a person here. They are not differentially private.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exact {
    /// The least number of patients of a cell, and between two releases; the preset's holds where it is higher.
    pub min_patients: u32,
}

/// How snapshots are taken and kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Snapshots {
    /// How much memory sorting may take, in bytes.
    pub memory_bytes: u64,
    /// How many of a data set stay in any case, the current one counted.
    pub keep: usize,
}

/// The bounds of a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How long one query may take, from its arrival to its release.
    pub query_timeout: Duration,
    /// How much memory one query may take, in bytes.
    pub memory_bytes: u64,
    /// Answers that are ready by then leave this long after the request; all others the time limit later.
    pub answer_step: Duration,
    /// How many queries run at once.
    pub max_concurrent_queries: usize,
    /// How many rows a table may have.
    pub max_rows: u64,
}

/// How the node logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Log {
    /// For people or for machines.
    pub format: LogFormat,
    /// From which level on.
    pub level: LogLevel,
}

/// The form of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For machines.
    Json,
}

/// The least level that is logged. There is no `trace`: libraries trace what they read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// What failed.
    Error,
    /// What is odd.
    Warn,
    /// What happens.
    Info,
    /// How it happens.
    Debug,
}

impl LogLevel {
    /// The level as a filter reads it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
        }
    }
}

/// Reads and checks the configuration in the TOML file at `path`; relative paths in it start from its folder.
///
/// # Errors
/// When the file cannot be read, or a key is missing, unknown or wrong; the error names it.
pub fn load(path: &Path) -> Result<NodeConfig, ConfigError> {
    let file = |e: config::ConfigError| ConfigError::File { path: path.into(), reason: e.to_string() };
    let source = File::from(path).format(FileFormat::Toml).required(true);
    let read = Config::builder().add_source(source).build().map_err(file)?;
    let read: NodeConfigFile = read.try_deserialize().map_err(file)?;
    let mut checked = NodeConfig::try_from(read)?;
    let folder = path.parent().unwrap_or(Path::new(""));
    let fixed = [&mut checked.state_dir, &mut checked.transport_key, &mut checked.signing_key, &mut checked.policy];
    let local = checked.local.as_mut().map(|local| &mut local.token_file);
    let console = checked.console.as_mut().map(|console| &mut console.token_file);
    for relative in fixed.into_iter().chain(local).chain(console).chain(&mut checked.datasets) {
        *relative = folder.join(&*relative);
    }
    checked.file = path.into();
    Ok(checked)
}

impl TryFrom<NodeConfigFile> for NodeConfig {
    type Error = ConfigError;

    /// Checks every key; paths stay as they are written.
    fn try_from(file: NodeConfigFile) -> Result<Self, ConfigError> {
        check(is_name(&file.name), "name", "write the name on the roster: 1-64 lower-case letters, digits, hyphens")?;
        let mut datasets = Vec::new();
        for (n, dataset) in file.datasets.iter().enumerate() {
            datasets.push(path(&dataset.mapping, &format!("datasets[{n}].mapping"))?);
        }
        let different: BTreeSet<_> = datasets.iter().collect();
        check(different.len() == datasets.len(), "datasets", "name each mapping file once")?;
        let (transport_key, signing_key) =
            (path(&file.keys.transport, "keys.transport")?, path(&file.keys.signing, "keys.signing")?);
        check(transport_key != signing_key, "keys.signing", "name another file than keys.transport")?;
        Ok(Self {
            file: PathBuf::new(),
            state_dir: path(&file.state_dir, "state_dir")?,
            transport_key,
            signing_key,
            coordinator: file.coordinator.try_into()?,
            trust: file.trust.try_into()?,
            budget: file.budget.try_into()?,
            policy: path(&file.policy.file, "policy.file")?,
            register: opt_out(&file.register)?,
            exact: file.exact.map(Exact::try_from).transpose()?,
            local: file.local.map(Local::try_from).transpose()?,
            console: file.console.map(Console::try_from).transpose()?,
            datasets,
            snapshots: file.snapshots.try_into()?,
            limits: file.limits.try_into()?,
            watch: file.watch.try_into()?,
            log: file.log.try_into()?,
            name: file.name,
        })
    }
}

fn wrong(key: &str, rule: impl Into<String>) -> ConfigError {
    ConfigError::Key { key: key.into(), rule: rule.into() }
}

fn check(holds: bool, key: &str, rule: &str) -> Result<(), ConfigError> {
    if holds { Ok(()) } else { Err(wrong(key, rule)) }
}

fn within(value: u64, min: u64, max: u64, key: &str) -> Result<u64, ConfigError> {
    if (min..=max).contains(&value) {
        return Ok(value);
    }
    Err(wrong(key, format!("write {min} to {max}; {value} is outside")))
}

fn path(text: &str, key: &str) -> Result<PathBuf, ConfigError> {
    check(!text.trim().is_empty(), key, "write a path, absolute or relative to this file")?;
    Ok(PathBuf::from(text))
}

fn key(text: &str, name: &str) -> Result<PublicKey, ConfigError> {
    text.parse().map_err(|e| wrong(name, format!("write a public key; {e}")))
}

impl TryFrom<CoordinatorFile> for Coordinator {
    type Error = ConfigError;

    fn try_from(file: CoordinatorFile) -> Result<Self, ConfigError> {
        let address = &file.address;
        let carried = address.contains("/tcp/") || (address.contains("/udp/") && address.contains("/quic-v1"));
        check(
            address.starts_with('/') && carried,
            "coordinator.address",
            "write a multiaddr: \"/dns/coordinator.example/tcp/7400\" or \"/ip4/192.0.2.1/udp/7400/quic-v1\"",
        )?;
        let id = &file.peer_id;
        check(
            (32..=128).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric()),
            "coordinator.peer_id",
            "write the coordinator's peer id: \"12D3Koo…\", as `sekisho-coordinator` shows it",
        )?;
        Ok(Self { address: file.address, peer_id: file.peer_id })
    }
}

impl TryFrom<TrustFile> for Trust {
    type Error = ConfigError;

    fn try_from(file: TrustFile) -> Result<Self, ConfigError> {
        let governance_key = key(&file.governance_key, "trust.governance_key")?;
        let mut seen = BTreeSet::from([governance_key.fingerprint()]);
        let mut committee = Vec::new();
        for (n, member) in file.committee.into_iter().enumerate() {
            let place = |field: &str| format!("trust.committee[{n}].{field}");
            check(!member.name.trim().is_empty(), &place("name"), "write the member's name")?;
            check(!member.role.trim().is_empty(), &place("role"), "write the member's seat, as \"chair\"")?;
            let key = key(&member.key, &place("key"))?;
            let rule = "write a key of its own; another member or the governance key has this one";
            check(seen.insert(key.fingerprint()), &place("key"), rule)?;
            committee.push(CommitteeMember { name: member.name, role: member.role, key });
        }
        check(!committee.is_empty(), "trust.committee", "name at least one member")?;
        let quorum = within(file.committee_quorum, 1, committee.len() as u64, "trust.committee_quorum")?;
        let needed = usize::try_from(quorum).unwrap_or(usize::MAX);
        let committee = Committee::pinned(needed, file.required_roles, file.distinct_roles, committee);
        let committee = committee.map_err(|rule| wrong("trust", &rule))?;
        let mut regulators: Vec<Regulator> = Vec::new();
        for (n, regulator) in file.regulators.into_iter().enumerate() {
            let place = |field: &str| format!("trust.regulators[{n}].{field}");
            let named = is_name(&regulator.name) && regulators.iter().all(|r| r.name != regulator.name);
            check(named, &place("name"), "write a name of its own: 1-64 lower-case letters, digits, hyphens")?;
            let key = key(&regulator.key, &place("key"))?;
            check(seen.insert(key.fingerprint()), &place("key"), "write a key of its own; somebody else has this one")?;
            regulators.push(Regulator { name: regulator.name, key });
        }
        check(regulators.len() <= MAX_REGULATORS, "trust.regulators", "name at most 16 regulators")?;
        Ok(Self { governance_key, committee, regulators })
    }
}

impl TryFrom<BudgetFile> for Budget {
    type Error = ConfigError;

    fn try_from(file: BudgetFile) -> Result<Self, ConfigError> {
        let rho = |amount: u64, key: &str| {
            within(amount, 1, MicroRho::MAX.get(), key)?.try_into().map_err(|_| wrong(key, "write less"))
        };
        let delta = |amount: u64, key: &str| amount.try_into().map_err(|e: DeltaTooLarge| wrong(key, e.to_string()));
        let lifetime = rho(file.lifetime_micro_rho, "budget.lifetime_micro_rho")?;
        let per_query = rho(file.max_micro_rho_per_query, "budget.max_micro_rho_per_query")?;
        check(
            per_query <= lifetime,
            "budget.max_micro_rho_per_query",
            "write at most what budget.lifetime_micro_rho says",
        )?;
        let lifetime_delta = delta(file.lifetime_atto_delta, "budget.lifetime_atto_delta")?;
        let delta_per_query = delta(file.max_atto_delta_per_query, "budget.max_atto_delta_per_query")?;
        check(
            delta_per_query <= lifetime_delta,
            "budget.max_atto_delta_per_query",
            "write at most what budget.lifetime_atto_delta says",
        )?;
        let window = match (file.window_days, file.window_micro_rho) {
            (None, None) => None,
            (Some(_), None) => return Err(wrong("budget.window_micro_rho", "write it beside budget.window_days")),
            (None, Some(_)) => return Err(wrong("budget.window_days", "write it beside budget.window_micro_rho")),
            (Some(days), Some(micro_rho)) => {
                let days = within(days, 1, 3660, "budget.window_days")?;
                let micro_rho = rho(micro_rho, "budget.window_micro_rho")?;
                // A query above the window's cap would be told to wait for ever; a window above the lifetime cap is none.
                check(
                    (per_query..=lifetime).contains(&micro_rho),
                    "budget.window_micro_rho",
                    "write at least budget.max_micro_rho_per_query and at most budget.lifetime_micro_rho",
                )?;
                Some(Window { days: u32::try_from(days).unwrap_or(u32::MAX), micro_rho })
            }
        };
        Ok(Self { lifetime, per_query, window, lifetime_delta, delta_per_query })
    }
}

impl TryFrom<ExactFile> for Exact {
    type Error = ConfigError;

    fn try_from(file: ExactFile) -> Result<Self, ConfigError> {
        let min_patients = within(file.min_patients, 3, 1_000_000, "exact.min_patients")?;
        Ok(Self { min_patients: u32::try_from(min_patients).unwrap_or(u32::MAX) })
    }
}

impl TryFrom<SnapshotsFile> for Snapshots {
    type Error = ConfigError;

    fn try_from(file: SnapshotsFile) -> Result<Self, ConfigError> {
        let keep = within(file.keep, 2, 1000, "snapshots.keep")?;
        Ok(Self {
            memory_bytes: within(file.memory_mb, 64, 1 << 20, "snapshots.memory_mb")? << 20,
            keep: usize::try_from(keep).unwrap_or(usize::MAX),
        })
    }
}

impl TryFrom<LimitsFile> for Limits {
    type Error = ConfigError;

    fn try_from(file: LimitsFile) -> Result<Self, ConfigError> {
        let concurrent = within(file.max_concurrent_queries, 1, 64, "limits.max_concurrent_queries")?;
        Ok(Self {
            query_timeout: Duration::from_secs(within(file.query_timeout_s, 1, 3600, "limits.query_timeout_s")?),
            memory_bytes: within(file.memory_mb, 64, 1 << 20, "limits.memory_mb")? << 20,
            answer_step: Duration::from_millis(within(file.answer_step_ms, 100, 60_000, "limits.answer_step_ms")?),
            max_concurrent_queries: usize::try_from(concurrent).unwrap_or(1),
            max_rows: within(file.max_rows, 1, 1_000_000_000_000, "limits.max_rows")?,
        })
    }
}

impl TryFrom<LogFile> for Log {
    type Error = ConfigError;

    fn try_from(file: LogFile) -> Result<Self, ConfigError> {
        let format = match file.format.as_str() {
            "text" => LogFormat::Text,
            "json" => LogFormat::Json,
            _ => return Err(wrong("log.format", "write \"text\" or \"json\"")),
        };
        let levels = [LogLevel::Error, LogLevel::Warn, LogLevel::Info, LogLevel::Debug];
        let level = levels
            .into_iter()
            .find(|level| level.as_str() == file.level)
            .ok_or_else(|| wrong("log.level", "write \"error\", \"warn\", \"info\" or \"debug\""))?;
        Ok(Self { format, level })
    }
}
