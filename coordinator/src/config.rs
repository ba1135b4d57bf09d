//! The coordinator's configuration: the file as it is written, and the settings as they are used.
//!
//! Promises: a key that is not known here is refused by name; every number has a range; a path is relative to the file
//! that names it; private keys are named, never held, by the file; no key turns a protection off.
//!
//! Deliberately absent: any environment variable, any default for whom to trust, and any privacy parameter (those are
//! the permit's and each hospital's).

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use sekisho_protocol::{
    committee::{Committee, CommitteeMember},
    keys::PublicKey,
    orders::{MAX_REGULATORS, Regulator},
    pages::Origin,
    roster::is_name,
    transport::Multiaddr,
    turns::Pace,
};
use serde::Deserialize;

/// The largest configuration file in bytes.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// Why a configuration is not used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{path}: {source}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The file is no TOML, lacks a key, or has one that is not known.
    #[error("{path}: {source}", path = path.display())]
    Form {
        /// The file.
        path: PathBuf,
        /// Where and what.
        source: Box<toml::de::Error>,
    },
    /// A value is not allowed.
    #[error("{key}: {reason}")]
    Value {
        /// The key, with its table: `door.address`.
        key: &'static str,
        /// What is wrong with it and what to write instead.
        reason: String,
    },
}

fn value(key: &'static str, reason: impl Into<String>) -> ConfigError {
    ConfigError::Value { key, reason: reason.into() }
}

/// The file form.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfigFile {
    /// Where the database lives.
    pub state_dir: PathBuf,
    /// Our private keys.
    pub keys: KeysFile,
    /// Where nodes dial in.
    pub network: NetworkFile,
    /// Where people ask.
    pub door: DoorFile,
    /// Whose signatures count.
    pub trust: TrustFile,
    /// What is asked of permits.
    #[serde(default)]
    pub governance: GovernanceFile,
    /// Bounds.
    #[serde(default)]
    pub limits: LimitsFile,
    /// Metrics and health.
    #[serde(default)]
    pub watch: WatchFile,
    /// The log.
    #[serde(default)]
    pub log: LogFile,
    /// The transparency log.
    #[serde(default)]
    pub transparency: TransparencyFile,
    /// The pages; none are served without it.
    pub pages: Option<PagesFile>,
}

/// `[pages]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PagesFile {
    /// IP address of loopback, and port.
    pub address: String,
    /// Where people find the pages through a reverse proxy: `https://` and a host.
    pub origin: Option<String>,
    /// The file of the tokens with which people sign in.
    #[serde(default = "pages_tokens")]
    pub tokens: PathBuf,
}

fn pages_tokens() -> PathBuf {
    "pages-tokens".into()
}

/// `[transparency]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TransparencyFile {
    /// IP address and port at which anybody may read checkpoint and tiles; nobody may without it.
    pub address: Option<String>,
    /// The file of the policy (c2sp.org/tlog-policy) that a checkpoint must meet before the next one is offered to witnesses.
    pub policy: Option<PathBuf>,
}

/// `[keys]`: paths of PKCS#8 PEM files of mode 0600.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeysFile {
    /// Proves our peer id.
    pub transport: PathBuf,
    /// Signs routes.
    pub signing: PathBuf,
}

/// `[network]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkFile {
    /// Multiaddrs.
    pub listen: Vec<String>,
}

/// `[door]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DoorFile {
    /// IP address and port.
    pub address: String,
    /// Needed off loopback.
    pub tls: Option<TlsFile>,
}

/// `[door.tls]`: paths of PEM files.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsFile {
    /// The certificate chain.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// `[trust]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrustFile {
    /// Signs roster, status and schemas.
    pub governance_key: String,
    /// How many of the committee must sign a permit.
    pub committee_quorum: usize,
    /// Roles that must be among the signers.
    #[serde(default)]
    pub required_roles: Vec<String>,
    /// Two signers of one role count once.
    #[serde(default)]
    pub distinct_roles: bool,
    /// Who signs permits.
    pub committee: Vec<CommitteeFile>,
    /// Whose orders are obeyed.
    #[serde(default)]
    pub regulators: Vec<RegulatorFile>,
}

/// `[[trust.regulators]]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegulatorFile {
    /// The name in its orders.
    pub name: String,
    /// Base64 of the public key.
    pub key: String,
}

/// `[[trust.committee]]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommitteeFile {
    /// Short name.
    pub name: String,
    /// What the member is there for: `ethics`, `medicine`, `law`, `layperson`.
    pub role: String,
    /// Base64 of the public key.
    pub key: String,
}

/// `[governance]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GovernanceFile {
    /// A permit must answer an application that was reviewed here.
    pub application_required: bool,
}

impl Default for GovernanceFile {
    fn default() -> Self {
        Self { application_required: true }
    }
}

/// `[limits]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsFile {
    /// How long hospitals have to answer.
    pub query_deadline_s: u64,
    /// How many queries run at once.
    pub max_concurrent_queries: usize,
    /// How many messages of one person are worked on at once.
    pub max_concurrent_per_person: usize,
    /// How many messages of one person are taken in any minute.
    pub max_per_person_per_minute: usize,
}

impl Default for LimitsFile {
    fn default() -> Self {
        let Pace { at_once, a_minute } = Pace::DEFAULT;
        Self {
            query_deadline_s: 120,
            max_concurrent_queries: 8,
            max_concurrent_per_person: at_once,
            max_per_person_per_minute: a_minute,
        }
    }
}

/// `[watch]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WatchFile {
    /// IP address of loopback, and port, of metrics and health; without it they are not served.
    pub address: Option<String>,
}

/// `[log]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogFile {
    /// How lines look.
    pub format: LogFormat,
    /// What is written.
    pub level: LogLevel,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// From which severity on the coordinator logs; libraries below it log warnings only, since they may print messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogLevel {
    /// Failures of the coordinator itself.
    Error,
    /// And of its peers.
    Warn,
    /// And what happens.
    #[default]
    Info,
    /// And how.
    Debug,
}

impl LogLevel {
    /// The level as a filter writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
        }
    }
}

/// Whose signatures count.
#[derive(Clone, Debug)]
pub struct Trust {
    /// Signs roster, status and schemas, until it gives way to another one.
    pub governance: PublicKey,
    /// The first committee; a later one is signed by the quorum of the one before.
    pub committee: Committee,
    /// Whose orders are obeyed.
    pub regulators: Vec<Regulator>,
    /// A permit must answer an application that was reviewed here.
    pub application_required: bool,
}

/// Where people ask.
#[derive(Clone, Debug)]
pub struct Door {
    /// Where it listens; port 0 lets the system choose.
    pub address: SocketAddr,
    /// Certificate chain and key, both PEM; always there off loopback.
    pub tls: Option<Tls>,
}

/// Paths of the door's certificate and key.
#[derive(Clone, Debug)]
pub struct Tls {
    /// The certificate chain, PEM.
    pub cert: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
}

/// Bounds on queries.
#[derive(Clone, Copy, Debug)]
pub struct QueryLimits {
    /// How long hospitals have to answer.
    pub deadline: Duration,
    /// How many queries run at once.
    pub concurrent: usize,
    /// How much one person may ask.
    pub pace: Pace,
}

/// The checked settings.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the database lives.
    pub state_dir: PathBuf,
    /// The file of the key that proves our peer id.
    pub transport_key: PathBuf,
    /// The file of the key that signs routes.
    pub signing_key: PathBuf,
    /// Where nodes dial in.
    pub listen: Vec<Multiaddr>,
    /// Where people ask.
    pub door: Door,
    /// Whose signatures count.
    pub trust: Trust,
    /// Bounds on queries.
    pub limits: QueryLimits,
    /// Where metrics and health are served, on this machine alone.
    pub watch: Option<SocketAddr>,
    /// How log lines look.
    pub log_format: LogFormat,
    /// What is logged.
    pub log_level: LogLevel,
    /// Where anybody may read checkpoint and tiles.
    pub tiles: Option<SocketAddr>,
    /// The file of the policy that checkpoints must meet.
    pub witness_policy: Option<PathBuf>,
    /// The pages.
    pub pages: Option<Pages>,
}

/// Where pages are served.
#[derive(Clone, Debug)]
pub struct Pages {
    /// Where they listen, on this machine alone.
    pub address: SocketAddr,
    /// Where people find them.
    pub origin: Option<Origin>,
    /// The file of the tokens.
    pub tokens: PathBuf,
}

impl Config {
    /// Reads the file at `path`.
    ///
    /// # Errors
    /// When it cannot be read, is malformed, or a value is not allowed.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let read = |source| ConfigError::Read { path: path.into(), source };
        if fs::metadata(path).map_err(read)?.len() > MAX_FILE_BYTES {
            return Err(read(std::io::Error::other(format!("more than {MAX_FILE_BYTES} bytes"))));
        }
        let text = fs::read_to_string(path).map_err(read)?;
        let file: ConfigFile = toml::from_str(&text)
            .map_err(|source| ConfigError::Form { path: path.into(), source: Box::new(source) })?;
        Self::check(file, path.parent().unwrap_or(Path::new("")))
    }

    /// Checks the file form; relative paths begin at `base`.
    ///
    /// # Errors
    /// When a value is not allowed.
    pub fn check(file: ConfigFile, base: &Path) -> Result<Self, ConfigError> {
        let LimitsFile {
            query_deadline_s,
            max_concurrent_queries,
            max_concurrent_per_person: at_once,
            max_per_person_per_minute: a_minute,
        } = file.limits;
        // The door's own calls end after 600 s.
        if !(1..=540).contains(&query_deadline_s) {
            return Err(value("limits.query_deadline_s", format!("{query_deadline_s} is not between 1 and 540")));
        }
        for (key, number, most) in [
            ("limits.max_concurrent_queries", max_concurrent_queries, 64),
            ("limits.max_concurrent_per_person", at_once, Pace::MOST.at_once),
            ("limits.max_per_person_per_minute", a_minute, Pace::MOST.a_minute),
        ] {
            if !(1..=most).contains(&number) {
                return Err(value(key, format!("{number} is not between 1 and {most}")));
            }
        }
        if file.network.listen.is_empty() {
            return Err(value("network.listen", "name at least one multiaddr, such as /ip4/0.0.0.0/tcp/4001"));
        }
        let listen = file
            .network
            .listen
            .iter()
            .map(|addr| addr.parse().map_err(|e| value("network.listen", format!("{addr} is no multiaddr: {e}"))));
        Ok(Self {
            state_dir: base.join(file.state_dir),
            transport_key: base.join(file.keys.transport),
            signing_key: base.join(file.keys.signing),
            listen: listen.collect::<Result<_, _>>()?,
            door: door(file.door, base)?,
            trust: trust(file.trust, &file.governance)?,
            limits: QueryLimits {
                deadline: Duration::from_secs(query_deadline_s),
                concurrent: max_concurrent_queries,
                pace: Pace { at_once, a_minute },
            },
            watch: file.watch.address.as_deref().map(watch).transpose()?,
            log_format: file.log.format,
            log_level: file.log.level,
            tiles: file.transparency.address.as_deref().map(tiles).transpose()?,
            witness_policy: file.transparency.policy.map(|policy| base.join(policy)),
            pages: file.pages.map(|file| pages(file, base)).transpose()?,
        })
    }
}

fn watch(address: &str) -> Result<SocketAddr, ConfigError> {
    let loopback = address.parse().ok().filter(|address: &SocketAddr| address.ip().is_loopback());
    let reason = || format!("{address} is not a loopback address and a port, such as 127.0.0.1:9817");
    loopback.ok_or_else(|| value("watch.address", reason()))
}

fn pages(file: PagesFile, base: &Path) -> Result<Pages, ConfigError> {
    let loopback = file.address.parse().ok().filter(|address: &SocketAddr| address.ip().is_loopback());
    let reason = || format!("{} is not a loopback address and a port, such as 127.0.0.1:8818", file.address);
    let address = loopback.ok_or_else(|| value("pages.address", reason()))?;
    let origin = file.origin.map(|origin| origin.parse().map_err(|e| value("pages.origin", format!("{origin}: {e}"))));
    Ok(Pages { address, origin: origin.transpose()?, tokens: base.join(file.tokens) })
}

fn tiles(address: &str) -> Result<SocketAddr, ConfigError> {
    let reason = || format!("{address} is not an IP address and a port, such as 127.0.0.1:8816");
    address.parse().map_err(|_| value("transparency.address", reason()))
}

fn door(file: DoorFile, base: &Path) -> Result<Door, ConfigError> {
    let address: SocketAddr = file.address.parse().map_err(|_| {
        value("door.address", format!("{} is not an IP address and a port, such as 127.0.0.1:8815", file.address))
    })?;
    let tls = file.tls.map(|tls| Tls { cert: base.join(tls.cert), key: base.join(tls.key) });
    if tls.is_none() && !address.ip().is_loopback() {
        let reason =
            format!("{address} is not a loopback address: add [door.tls] with cert and key (PEM), or use 127.0.0.1");
        return Err(value("door.address", reason));
    }
    Ok(Door { address, tls })
}

pub(crate) fn trust(file: TrustFile, asked: &GovernanceFile) -> Result<Trust, ConfigError> {
    let governance = file.governance_key.parse().map_err(|e| {
        value("trust.governance_key", format!("{e}; ask the access body for its key and compare the fingerprint"))
    })?;
    let mut members = Vec::new();
    for CommitteeFile { name, role, key } in file.committee {
        if !is_name(&name) {
            let reason = format!("{name:?} is not made of lower-case letters, digits and hyphens");
            return Err(value("trust.committee.name", reason));
        }
        let key: PublicKey = key.parse().map_err(|e| value("trust.committee.key", format!("{name}: {e}")))?;
        members.push(CommitteeMember { name, role, key });
    }
    let committee = Committee::pinned(file.committee_quorum, file.required_roles, file.distinct_roles, members);
    let mut regulators: Vec<Regulator> = Vec::new();
    for RegulatorFile { name, key } in file.regulators {
        if !is_name(&name) || regulators.iter().any(|r| r.name == name) || regulators.len() == MAX_REGULATORS {
            let reason = format!("{name:?}: at most 16 names, each its own, of lower-case letters, digits and hyphens");
            return Err(value("trust.regulators.name", reason));
        }
        let key = key.parse().map_err(|e| value("trust.regulators.key", format!("{name}: {e}")))?;
        regulators.push(Regulator { name, key });
    }
    let committee = committee.map_err(|rule| value("trust.committee", rule))?;
    Ok(Trust { governance, committee, regulators, application_required: asked.application_required })
}

#[cfg(test)]
mod tests {
    use sekisho_protocol::keys::SecretKey;

    use super::*;

    fn text() -> String {
        let key = || SecretKey::generate(&mut rand::rng()).public();
        format!(
            r#"
state_dir = "state"
[keys]
transport = "keys/transport.pem"
signing = "/etc/sekisho/signing.pem"
[network]
listen = ["/ip4/0.0.0.0/tcp/4001"]
[door]
address = "127.0.0.1:8815"
[trust]
governance_key = "{}"
committee_quorum = 1
[[trust.committee]]
name = "sato"
role = "ethics"
key = "{}"
"#,
            key(),
            key()
        )
    }

    fn load(text: &str) -> Result<Config, ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("coordinator.toml");
        fs::write(&path, text).unwrap();
        Config::load(&path)
    }

    #[test]
    fn a_minimal_file_has_the_documented_defaults_and_paths_beside_it() {
        let config = load(&text()).unwrap();
        assert_eq!(config.limits.deadline, Duration::from_secs(120));
        assert_eq!(config.limits.concurrent, 8);
        assert!(config.trust.application_required);
        assert_eq!(config.watch, None);
        assert!(config.pages.is_none(), "no pages are served unless they are configured");
        assert_eq!((config.tiles, config.witness_policy), (None, None), "nobody reads the log unless it is configured");
        assert_eq!((config.log_format, config.log_level), (LogFormat::Text, LogLevel::Info));
        assert!(config.transport_key.is_absolute() && config.transport_key.ends_with("keys/transport.pem"));
        assert_eq!(config.signing_key, Path::new("/etc/sekisho/signing.pem"));
    }

    fn refused(from: &str, to: &str, names: &str) {
        let text = text();
        assert!(text.contains(from), "{from}");
        let message = load(&text.replacen(from, to, 1)).unwrap_err().to_string();
        assert!(message.contains(names), "{message}");
    }

    #[test]
    fn what_is_not_allowed_is_refused_by_the_name_of_its_key() {
        for (from, to, names) in [
            ("state_dir", "skip_verification = true\nstate_dir", "skip_verification"),
            ("127.0.0.1:8815", "0.0.0.0:8815", "[door.tls]"),
            ("127.0.0.1:8815", "localhost", "door.address"),
            ("/ip4/0.0.0.0/tcp/4001", "0.0.0.0:4001", "network.listen"),
            ("[\"/ip4/0.0.0.0/tcp/4001\"]", "[]", "network.listen"),
            ("committee_quorum = 1", "committee_quorum = 0", "trust.committee"),
            ("committee_quorum = 1", "committee_quorum = 2", "trust.committee"),
            ("governance_key = \"", "governance_key = \"x", "trust.governance_key"),
            ("sato", "Sato", "trust.committee.name"),
            ("[network]", "[limits]\nquery_deadline_s = 0\n[network]", "limits.query_deadline_s"),
            ("[network]", "[limits]\nmax_concurrent_queries = 65\n[network]", "limits.max_concurrent_queries"),
            ("[network]", "[limits]\nmax_concurrent_per_person = 0\n[network]", "limits.max_concurrent_per_person"),
            ("[network]", "[limits]\nmax_per_person_per_minute = 6001\n[network]", "limits.max_per_person_per_minute"),
            ("[network]", "[watch]\naddress = \"0.0.0.0:9817\"\n[network]", "watch.address"),
            ("[network]", "[watch]\naddress = \"localhost\"\n[network]", "watch.address"),
            ("[network]", "[transparency]\naddress = \"localhost\"\n[network]", "transparency.address"),
            ("[network]", "[transparency]\ntls = true\n[network]", "tls"),
            ("[network]", "[pages]\naddress = \"0.0.0.0:8818\"\n[network]", "pages.address"),
            ("[network]", "[pages]\naddress = \"127.0.0.1:1\"\norigin = \"http://x.jp\"\n[network]", "pages.origin"),
            ("[network]", "[log]\nlevel = \"trace\"\n[network]", "trace"),
        ] {
            refused(from, to, names);
        }
    }

    #[test]
    fn one_key_twice_in_the_committee_is_refused() {
        let text = text();
        let key = text.rsplit("key = ").next().unwrap().trim();
        let again = format!("{text}[[trust.committee]]\nname = \"kato\"\nrole = \"law\"\nkey = {key}\n");
        assert!(load(&again).unwrap_err().to_string().contains("two members have one key"));
    }

    #[test]
    fn off_loopback_the_door_takes_a_certificate() {
        let tls = "0.0.0.0:8815\"\n[door.tls]\ncert = \"c.pem\"\nkey = \"/k.pem";
        let config = load(&text().replacen("127.0.0.1:8815", tls, 1)).unwrap();
        assert_eq!(config.door.tls.unwrap().key, Path::new("/k.pem"));
    }
}
