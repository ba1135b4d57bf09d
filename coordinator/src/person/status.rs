//! `sekisho status`: what is void or suspended at this hour, as the governance key signs it.
//!
//! Each command fetches the status in force, changes it, and hands in the next one, valid anew. Hospitals answer
//! nothing under an expired status, so `refresh` must run well within `--valid-for`.

use std::path::PathBuf;

use chrono::{DateTime, TimeDelta, Utc};
use clap::{Args, Subcommand};
use sekisho_protocol::{
    digest::Digest,
    key_file,
    refusal::Code,
    roster::is_name,
    status::{PermitVersion, RevokedPermit, Status},
};

use super::{
    Context, duration,
    failure::{Exit, Failure},
    governance::{following, newest, publish, show},
    print::{self, Output},
};
use crate::report::Want;

/// How the next status is signed.
#[derive(Debug, Args)]
pub struct Signing {
    /// The governance key.
    #[arg(long, value_name = "FILE")]
    pub(super) key: PathBuf,
    /// How long the status holds.
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = duration::parse)]
    pub(super) valid_for: TimeDelta,
}

/// What to do with the status.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Sign the same status anew, for another day.
    #[command(after_help = "Example:\n  sekisho status refresh --key governance.pem --valid-for 24h")]
    Refresh {
        #[command(flatten)]
        signing: Signing,
    },
    /// Print the status in force, as the coordinator has it (its signature is not checked).
    #[command(after_help = "Example:\n  sekisho status show")]
    Show {
        /// For people or for programs.
        #[arg(long, value_enum, default_value = "table")]
        output: Output,
    },
    /// Let a study rest: no hospital answers it.
    #[command(after_help = "Example:\n  sekisho status suspend waiting-times --key governance.pem")]
    Suspend {
        /// The study's id.
        study: String,
        #[command(flatten)]
        signing: Signing,
    },
    /// Let a suspended study go on.
    #[command(after_help = "Example:\n  sekisho status resume waiting-times --key governance.pem")]
    Resume {
        /// The study's id.
        study: String,
        #[command(flatten)]
        signing: Signing,
    },
    /// Make a key void, whoever's it is, for ever.
    #[command(after_help = "Example:\n  sekisho status void-key 5f0c…64 digits… --key governance.pem")]
    VoidKey {
        /// The key's fingerprint, 64 hexadecimal digits.
        fingerprint: Digest,
        #[command(flatten)]
        signing: Signing,
    },
    /// Make all versions of a permit below VERSION void.
    #[command(after_help = "Example:\n  sekisho status supersede permit-7 --version 2 --key governance.pem")]
    Supersede {
        /// The permit's id.
        id: String,
        /// Its newest version.
        #[arg(long)]
        version: u32,
        #[command(flatten)]
        signing: Signing,
    },
}

/// One change of a status.
pub enum Change<'a> {
    /// None: the same contents, valid anew.
    Refresh,
    /// A study rests.
    Suspend(&'a str),
    /// A study goes on.
    Resume(&'a str),
    /// A key is void.
    VoidKey(Digest),
    /// Older versions of a permit are void.
    Supersede(&'a str, u32),
    /// A permit is void.
    Revoke(Digest, &'a str),
}

/// Does what `command` says.
///
/// # Errors
/// When a name or a key is wrong, or the coordinator refuses or cannot be reached.
pub async fn run(command: &Command, context: &Context) -> Result<Exit, Failure> {
    match command {
        Command::Refresh { signing } => change(Change::Refresh, signing, context).await,
        Command::Suspend { study, signing } => change(Change::Suspend(study), signing, context).await,
        Command::Resume { study, signing } => change(Change::Resume(study), signing, context).await,
        Command::VoidKey { fingerprint, signing } => change(Change::VoidKey(*fingerprint), signing, context).await,
        Command::Supersede { id, version, signing } => change(Change::Supersede(id, *version), signing, context).await,
        Command::Show { output } => {
            let (envelope, status, digest) = context.door().await?.get::<Status>(&Want::Status).await?;
            show(&envelope, &status, digest, *output, table)?;
            Ok(Exit::Done)
        }
    }
}

/// Publishes the status in force with one `change`.
///
/// # Errors
/// As [`run`].
pub async fn change(change: Change<'_>, signing: &Signing, context: &Context) -> Result<Exit, Failure> {
    let key = key_file::read(&signing.key)?;
    let mut door = context.door().await?;
    let current = newest::<Status>(&mut door, &Want::Status, Code::StaleStatus, &key).await?;
    let current = current.as_ref().map(|c| (c.document(), c.digest()));
    let next = next(current, &change, context.now, signing.valid_for)?;
    let report = publish(&mut door, &next, &key).await?;
    print::put(&report, Output::Table, false)
}

/// The status after `current`, changed.
fn next(
    current: Option<(&Status, Digest)>,
    change: &Change<'_>,
    issued: DateTime<Utc>,
    valid_for: TimeDelta,
) -> Result<Status, Failure> {
    let (seq, prev) = following(current, |s| s.seq);
    let mut status = current.map_or_else(
        || Status {
            seq,
            prev,
            issued,
            expires: issued,
            revoked_permits: Vec::new(),
            permit_versions: Vec::new(),
            suspended_studies: Vec::new(),
            void_keys: Vec::new(),
        },
        |(status, _)| status.clone(),
    );
    (status.seq, status.prev, status.issued, status.expires) = (seq, prev, issued, issued + valid_for);
    let already = |what: String| Err(Failure::input(what, "see `sekisho status show`; nothing was sent"));
    match *change {
        Change::Refresh => {}
        Change::Suspend(study) if !is_name(study) => return already(format!("{study} is no study's id")),
        Change::Suspend(study) if status.suspended_studies.iter().any(|s| s == study) => {
            return already(format!("study {study} is suspended already"));
        }
        Change::Suspend(study) => status.suspended_studies.push(study.into()),
        Change::Resume(study) => {
            let before = status.suspended_studies.len();
            status.suspended_studies.retain(|s| s != study);
            if status.suspended_studies.len() == before {
                return already(format!("study {study} is not suspended"));
            }
        }
        Change::VoidKey(key) if status.void_keys.contains(&key) => {
            return already(format!("key {key} is void already"));
        }
        Change::VoidKey(key) => status.void_keys.push(key),
        Change::Supersede(id, version) => match status.permit_versions.iter_mut().find(|v| v.id == id) {
            _ if !is_name(id) => return already(format!("{id} is no permit's id")),
            Some(known) if known.version >= version => {
                return already(format!("version {} of permit {id} is in force already", known.version));
            }
            Some(known) => known.version = version,
            None => status.permit_versions.push(PermitVersion { id: id.into(), version }),
        },
        Change::Revoke(permit, _) if status.revokes(permit) => {
            return already(format!("permit {permit} is revoked already"));
        }
        Change::Revoke(permit, reason) => {
            status.revoked_permits.push(RevokedPermit { permit, reason: reason.into(), at: issued });
        }
    }
    Ok(status)
}

fn table(status: &Status) -> String {
    let facts = [
        ("status", status.seq.to_string()),
        ("issued", status.issued.to_rfc3339()),
        ("expires", status.expires.to_rfc3339()),
    ];
    let revoked = status
        .revoked_permits
        .iter()
        .map(|r| ["revoked permit".into(), r.permit.to_string(), format!("since {}: {}", r.at.to_rfc3339(), r.reason)]);
    let newest = status.permit_versions.iter().map(|v| ["newest version".into(), v.id.clone(), v.version.to_string()]);
    let studies = status.suspended_studies.iter().map(|s| ["suspended study".into(), s.clone(), String::new()]);
    let keys = status.void_keys.iter().map(|k| ["void key".into(), k.to_string(), String::new()]);
    let rows: Vec<[String; 3]> = revoked.chain(newest).chain(studies).chain(keys).collect();
    if rows.is_empty() {
        return format!("{}\nnothing is void or suspended", print::pairs(&facts));
    }
    format!("{}\n{}", print::pairs(&facts), print::table(["what", "which", "detail"], rows))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(current: Option<&Status>, change: &Change<'_>) -> Result<Status, Failure> {
        let at = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        next(current.map(|s| (s, Digest::of(b"current"))), change, at, TimeDelta::hours(24))
    }

    #[test]
    fn a_refreshed_status_has_the_same_contents_and_the_next_number() {
        let first = after(None, &Change::Suspend("asthma")).unwrap();
        assert_eq!((first.seq, first.prev), (1, None));
        let second = after(Some(&first), &Change::Refresh).unwrap();
        assert_eq!((second.seq, second.prev), (2, Some(Digest::of(b"current"))));
        assert_eq!(second.suspended_studies, first.suspended_studies);
        assert_eq!(second.expires - second.issued, TimeDelta::hours(24));
    }

    #[test]
    fn what_changes_nothing_is_not_signed() {
        let digest = Digest::of(b"permit");
        let mut status = after(None, &Change::Refresh).unwrap();
        assert!(after(Some(&status), &Change::Resume("asthma")).is_err());
        assert!(after(Some(&status), &Change::Suspend("No Name")).is_err());
        for change in [
            Change::Suspend("asthma"),
            Change::VoidKey(digest),
            Change::Supersede("permit-1", 2),
            Change::Revoke(digest, "withdrawn"),
        ] {
            status = after(Some(&status), &change).unwrap();
            assert!(after(Some(&status), &change).is_err());
        }
        assert!(status.revokes(digest) && status.supersedes("permit-1", 1));
        assert!(after(Some(&status), &Change::Resume("asthma")).unwrap().suspended_studies.is_empty());
    }
}
