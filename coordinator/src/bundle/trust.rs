//! `trust.toml`: the few keys from which a bundle is checked.
//!
//! The section `[trust]` is that of the configurations of nodes and coordinator; `[log]` has a trust policy (c2sp.org/tlog-policy) that
//! names the coordinator's log, its witnesses and how many are enough. Deliberately absent: any default of whom to trust.

use std::{
    io,
    path::{Path, PathBuf},
};

use sekisho_protocol::{
    committee::Committee,
    keys::PublicKey,
    log::{
        checkpoint::origin,
        note::{KeyName, NoteError, NoteKey, Signs},
        policy::{Policy, PolicyError},
    },
    roster::{Member, Role, Roster},
};
use serde::Deserialize;

use super::reading::coordinator;
use crate::{
    config::{self, ConfigError, GovernanceFile, TrustFile},
    report::TrustReport,
};

/// How many hospitals a template asks to have cosigned, as far as there are so many.
const WITNESSES: usize = 2;

/// Why a `trust.toml` is not used.
#[derive(Debug, thiserror::Error)]
pub enum TrustFileError {
    /// Not TOML, or with keys that are missing or not known.
    #[error("{0}")]
    Toml(#[from] toml::de::Error),
    /// A key or a name.
    #[error(transparent)]
    Value(#[from] ConfigError),
    /// Both or neither.
    #[error("[log] has either policy, the text of a policy, or policy_file, the path of one")]
    PolicyOnce,
    /// The policy's file.
    #[error("{path}: {source}", path = path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The policy.
    #[error(transparent)]
    Policy(#[from] PolicyError),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    trust: TrustFile,
    log: LogFile,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LogFile {
    policy: Option<String>,
    policy_file: Option<PathBuf>,
}

/// Whom the reader of a bundle trusts.
#[derive(Debug)]
pub struct Trust {
    pub(super) governance: PublicKey,
    pub(super) committee: Committee,
    pub(super) policy: Policy,
}

impl Trust {
    /// Reads a `trust.toml`; `read` reads the policy's file where it names one.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str, read: impl FnOnce(&Path) -> io::Result<Vec<u8>>) -> Result<Self, TrustFileError> {
        let File { trust, log } = toml::from_str(text)?;
        let trust = config::trust(trust, &GovernanceFile::default())?;
        let policy = match (log.policy, log.policy_file) {
            (Some(policy), None) => policy.into_bytes(),
            (None, Some(path)) => read(&path).map_err(|source| TrustFileError::Read { path, source })?,
            (Some(_), Some(_)) | (None, None) => return Err(TrustFileError::PolicyOnce),
        };
        Ok(Self { governance: trust.governance, committee: trust.committee, policy: Policy::parse(&policy)? })
    }
}

/// A `trust.toml` by what a coordinator says of itself: nobody's word but its own.
///
/// # Errors
/// When the roster names no coordinator, or a name cannot be a key's.
pub fn template(report: &TrustReport, roster: &Roster) -> Result<String, NoteError> {
    let quoted = |text: &str| toml::Value::String(text.into()).to_string();
    let list = |all: &[String]| toml::Value::from(all.to_vec()).to_string();
    let committee = &report.committee;
    let mut lines = vec![
        "# Whom you trust when you check release bundles: `sekisho verify BUNDLE --trust trust.toml`.".to_string(),
        "# This is what the coordinator says, and nobody else. Before you use it, compare by telephone: the governance key with the".into(),
        "# access body, each member's key with the member, and each witness' key with the hospital. / 使う前に、鍵を電話で確かめてください。".into(),
        String::new(),
        "[trust]".into(),
        format!("# fingerprint {}", report.governance.fingerprint()),
        format!("governance_key = {}", quoted(&report.governance.to_string())),
        format!("committee_quorum = {}", committee.needed),
        format!("required_roles = {}", list(&committee.required_roles)),
        format!("distinct_roles = {}", committee.distinct_roles),
    ];
    for member in &committee.members {
        lines.extend([
            "\n[[trust.committee]]".into(),
            format!("name = {}", quoted(&member.name)),
            format!("role = {}", quoted(&member.role)),
            format!("# fingerprint {}", member.key.fingerprint()),
            format!("key = {}", quoted(&member.key.to_string())),
        ]);
    }
    lines.extend([
        "\n[log]".into(),
        "# The coordinator's log, its witnesses, and how many of them are enough (c2sp.org/tlog-policy).".into(),
        format!("policy = \"\"\"\n{}\"\"\"\n", policy(report, roster)?),
    ]);
    Ok(lines.join("\n"))
}

/// The policy of a network whose hospitals witness the coordinator's log.
pub(super) fn policy(report: &TrustReport, roster: &Roster) -> Result<String, NoteError> {
    let name = |member: &Member| origin(&report.governance, &member.name);
    let log = |us: &Member| Ok::<_, NoteError>(NoteKey::new(name(us)?, Signs::Text, us.signing_key));
    let mut lines: Vec<String> =
        coordinator(roster).map(log).transpose()?.map(|key| format!("log {key}")).into_iter().collect();
    let hospitals: Vec<&Member> = roster.members.iter().filter(|member| member.role == Role::Node).collect();
    for member in &hospitals {
        let key = NoteKey::new(name(member)?, Signs::Cosignature, member.signing_key);
        lines.push(format!("witness {} {key}", member.name));
    }
    let names: Vec<&str> = hospitals.iter().map(|member| member.name.as_str()).collect();
    // With a capital, so that no hospital is called so.
    if names.is_empty() {
        lines.push("quorum none".into());
    } else {
        lines.push(format!("group Hospitals {} {}", names.len().min(WITNESSES), names.join(" ")));
        lines.push("quorum Hospitals".into());
    }
    Ok(lines.join("\n") + "\n")
}

/// The member that a log or witness of this name belongs to.
pub(super) fn member_of(name: &KeyName) -> &str {
    name.as_str().split_once('/').map_or("", |(_, member)| member)
}
