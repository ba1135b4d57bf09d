//! `sekisho roster`: who is a member, as the governance key signs it.
//!
//! Each command fetches the roster in force, changes it, and hands in the next one. Deliberately absent: a
//! way to change a member's keys without saying so (`--replace`).

use std::path::PathBuf;

use chrono::{DateTime, TimeDelta, Utc};
use clap::{Args, Subcommand};
use sekisho_protocol::{
    digest::Digest,
    dsse::Envelope,
    key_file,
    refusal::Code,
    roster::{Member, Role, Roster, is_name},
};

use super::{
    Context,
    door::Door,
    duration,
    failure::{Exit, Failure},
    file,
    governance::{following, newest, publish, show},
    print::{self, Output},
};
use crate::{report::Want, store::Kind};

/// How the next roster is signed.
#[derive(Debug, Args)]
pub struct Signing {
    /// The governance key.
    #[arg(long, value_name = "FILE")]
    pub(super) key: PathBuf,
    /// How long the roster holds.
    #[arg(long, value_name = "TIME", default_value = "365d", value_parser = duration::parse)]
    pub(super) expires_in: TimeDelta,
}

/// What to do with the roster.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Add members, from the files that `sekisho-node init` and `sekisho-coordinator init` write.
    #[command(after_help = "Example:\n  sekisho roster add tokyo.json osaka.json --key governance.pem")]
    Add {
        /// The members' files. Compare the fingerprints with the hospitals, by telephone.
        #[arg(required = true, value_name = "MEMBER.json")]
        members: Vec<PathBuf>,
        /// Replace members that have these names and other keys.
        #[arg(long)]
        replace: bool,
        #[command(flatten)]
        signing: Signing,
    },
    /// Remove members.
    #[command(after_help = "Example:\n  sekisho roster remove osaka --key governance.pem")]
    Remove {
        /// Their names.
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
        #[command(flatten)]
        signing: Signing,
    },
    /// Sign the same roster anew, for another year.
    #[command(after_help = "Example:\n  sekisho roster refresh --key governance.pem --expires-in 365d")]
    Refresh {
        #[command(flatten)]
        signing: Signing,
    },
    /// Print the roster in force, as the coordinator has it (its signature is not checked).
    #[command(after_help = "Example:\n  sekisho roster show --seq 3 --output json")]
    Show {
        /// An earlier roster by its number, as for receipts that a key signed which has given way to another.
        #[arg(long, value_name = "N")]
        seq: Option<u64>,
        /// For people or for programs.
        #[arg(long, value_enum, default_value = "table")]
        output: Output,
    },
}

enum Change<'a> {
    Add { members: Vec<Member>, replace: bool },
    Remove(&'a [String]),
}

/// Does what `command` says.
///
/// # Errors
/// When a file, a name or a key is wrong, or the coordinator refuses or cannot be reached.
pub async fn run(command: &Command, context: &Context) -> Result<Exit, Failure> {
    match command {
        Command::Add { members, replace, signing } => {
            let members = members.iter().map(|path| member(path)).collect::<Result<Vec<_>, _>>()?;
            for member in &members {
                print::note(&format!("{}: signing key {}", member.name, member.signing_key.fingerprint()));
            }
            change(Change::Add { members, replace: *replace }, signing, context).await
        }
        Command::Refresh { signing } => refresh(signing, context).await,
        Command::Remove { names, signing } => change(Change::Remove(names), signing, context).await,
        Command::Show { seq, output } => {
            let mut door = context.door().await?;
            let (envelope, roster, digest) = match seq {
                None => door.get::<Roster>(&Want::Roster).await?,
                Some(seq) => earlier(&mut door, *seq).await?,
            };
            show(&envelope, &roster, digest, *output, table)?;
            Ok(Exit::Done)
        }
    }
}

/// The roster of this number, from the coordinator's history.
async fn earlier(door: &mut Door, seq: u64) -> Result<(Envelope, Roster, Digest), Failure> {
    let listed = door.list(Kind::Roster, None).await?;
    let found = listed.into_iter().find(|listed| listed.seq == seq);
    let none = || Failure::input(format!("the coordinator has no roster {seq}"), "see `sekisho roster show`");
    let envelope = found.ok_or_else(none)?.envelope;
    let (roster, digest) = envelope.peek::<Roster>().map_err(|e| Failure::answer("roster", e))?;
    Ok((envelope, roster, digest))
}

fn member(path: &std::path::Path) -> Result<Member, Failure> {
    serde_json::from_slice(&file::read(path)?).map_err(|e| {
        Failure::input(
            format!("{} describes no member: {e}", path.display()),
            "name the file that `sekisho-node init` or `sekisho-coordinator init` wrote",
        )
    })
}

/// Publishes the roster in force, valid anew.
///
/// # Errors
/// As [`run`].
pub async fn refresh(signing: &Signing, context: &Context) -> Result<Exit, Failure> {
    change(Change::Add { members: Vec::new(), replace: false }, signing, context).await
}

async fn change(change: Change<'_>, signing: &Signing, context: &Context) -> Result<Exit, Failure> {
    let key = key_file::read(&signing.key)?;
    let mut door = context.door().await?;
    let current = newest::<Roster>(&mut door, &Want::Roster, Code::StaleRoster, &key).await?;
    let current = current.as_ref().map(|c| (c.document(), c.digest()));
    let next = next(current, change, context.now, signing.expires_in)?;
    let report = publish(&mut door, &next, &key).await?;
    print::put(&report, Output::Table, false)
}

/// The roster after `current`, changed.
fn next(
    current: Option<(&Roster, Digest)>,
    change: Change<'_>,
    issued: DateTime<Utc>,
    expires_in: TimeDelta,
) -> Result<Roster, Failure> {
    let (seq, prev) = following(current, |r| r.seq);
    let mut members = current.map(|(r, _)| r.members.clone()).unwrap_or_default();
    match change {
        Change::Add { members: added, replace } => {
            for member in added {
                match members.iter_mut().find(|m| m.name == member.name) {
                    Some(known) if *known == member => {}
                    Some(known) if replace => *known = member,
                    Some(_) => {
                        return Err(Failure::input(
                            format!("the roster has a member {} with other keys", member.name),
                            "find out why; to replace it, add --replace",
                        ));
                    }
                    None => members.push(member),
                }
            }
        }
        Change::Remove(names) => {
            for name in names {
                let before = members.len();
                members.retain(|m| m.name != *name);
                if members.len() == before {
                    let known = if is_name(name) { "the roster has no such member" } else { "that is no name" };
                    return Err(Failure::input(format!("{name}: {known}"), "see `sekisho roster show`"));
                }
            }
        }
    }
    Ok(Roster { seq, prev, issued, expires: issued + expires_in, members })
}

fn table(roster: &Roster) -> String {
    let row = |m: &Member| {
        let role = match m.role {
            Role::Node => "node",
            Role::Coordinator => "coordinator",
        };
        [m.name.clone(), role.into(), m.peer_id.clone(), m.signing_key.fingerprint().to_string()]
    };
    let facts = [
        ("roster", roster.seq.to_string()),
        ("issued", roster.issued.to_rfc3339()),
        ("expires", roster.expires.to_rfc3339()),
    ];
    let members = print::table(["member", "role", "peer id", "signing key"], roster.members.iter().map(row));
    format!("{}\n{members}", print::pairs(&facts))
}

#[cfg(test)]
mod tests {
    use sekisho_protocol::keys::SecretKey;

    use super::*;

    fn someone(name: &str) -> Member {
        let signing_key = SecretKey::generate(&mut rand::rng()).public();
        Member { name: name.into(), role: Role::Node, peer_id: format!("peer of {name}"), signing_key }
    }

    fn at() -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000, 0).unwrap()
    }

    fn add(current: Option<&Roster>, members: Vec<Member>, replace: bool) -> Result<Roster, Failure> {
        let current = current.map(|r| (r, Digest::of(b"current")));
        next(current, Change::Add { members, replace }, at(), TimeDelta::days(365))
    }

    #[test]
    fn the_first_roster_has_number_one_and_the_next_names_it() {
        let first = add(None, vec![someone("tokyo"), someone("osaka")], false).unwrap();
        assert_eq!((first.seq, first.prev, first.members.len()), (1, None, 2));
        let second = add(Some(&first), vec![someone("kyoto")], false).unwrap();
        assert_eq!((second.seq, second.prev, second.members.len()), (2, Some(Digest::of(b"current")), 3));
        assert_eq!(second.expires - second.issued, TimeDelta::days(365));
    }

    #[test]
    fn a_member_is_replaced_only_when_that_is_said() {
        let (old, new) = (someone("tokyo"), someone("tokyo"));
        let roster = add(None, vec![old.clone()], false).unwrap();
        assert_eq!(add(Some(&roster), vec![old], false).unwrap().members, roster.members);
        assert_eq!(add(Some(&roster), vec![new.clone()], false).unwrap_err().exit(), Exit::Input);
        assert_eq!(add(Some(&roster), vec![new.clone()], true).unwrap().members, [new]);
    }

    #[test]
    fn who_is_no_member_cannot_be_removed() {
        let roster = add(None, vec![someone("tokyo")], false).unwrap();
        let remove = |name: &str| {
            let names = [name.to_string()];
            next(Some((&roster, Digest::of(b"r"))), Change::Remove(&names), at(), TimeDelta::days(1))
        };
        assert!(remove("tokyo").unwrap().members.is_empty());
        assert!(remove("osaka").is_err());
    }
}
