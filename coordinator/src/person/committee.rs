//! `sekisho committee`: who decides on uses, and how the committee changes.
//!
//! The next committee is drafted from the one in force, which its members sign, each on a machine of their own; a quorum of
//! them makes it count. The chain is walked here from the committee that the coordinator pins: compare its digest with what
//! your hospital or the access body says.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use sekisho_protocol::{
    committee::{Committee, CommitteeChain, CommitteeMember},
    dsse::{Document, Envelope},
    key_file,
    keys::PublicKey,
};

use super::{
    Context,
    failure::{Exit, Failure},
    file, governance, permit,
    print::{self, Output, Spinner},
};
use crate::report::TrustReport;

/// What to do with the committee.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Print the committee in force and those before it, or one in a file.
    #[command(after_help = "Example:\n  sekisho committee show --output json")]
    Show {
        /// A draft; the committee in force without it.
        file: Option<PathBuf>,
        /// For people or for programs.
        #[arg(long, value_enum, default_value = "table")]
        output: Output,
    },
    /// Draft the next committee from the one in force; nobody has signed it yet.
    #[command(
        after_help = "Example:\n  sekisho committee new --remove sato --add ito:ethicist:11qYAYKx… --reason 'term ended' --out committee.dsse.json"
    )]
    New(Box<Draft>),
    /// Add a member's signature to a draft, after showing what is signed.
    #[command(after_help = "Example:\n  sekisho committee sign committee.dsse.json --key member.pem")]
    Sign {
        /// The draft; the signature is added in place.
        file: PathBuf,
        /// The member's key.
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
    },
    /// Hand a signed committee in; hospitals go by it from then on.
    #[command(after_help = "Example:\n  sekisho committee submit committee.dsse.json")]
    Submit {
        /// The signed committee.
        file: PathBuf,
        /// For people or for programs.
        #[arg(long, value_enum, default_value = "table")]
        output: Output,
    },
}

/// The changes of a draft.
#[derive(Debug, Args)]
pub struct Draft {
    /// A new member; repeat it.
    #[arg(long, value_name = "NAME:ROLE:KEY")]
    add: Vec<CommitteeMember>,
    /// Who leaves; repeat it.
    #[arg(long, value_name = "NAME")]
    remove: Vec<String>,
    /// A member with a new key; repeat it.
    #[arg(long, value_name = "NAME:KEY", value_parser = replacement)]
    replace: Vec<(String, PublicKey)>,
    /// How many must sign; as before without it.
    #[arg(long, value_name = "N")]
    needed: Option<usize>,
    /// A role that must be among the signers; repeat it; as before without it.
    #[arg(long, value_name = "ROLE")]
    required_role: Vec<String>,
    /// Whether two signers of one role count once; as before without it.
    #[arg(long, value_name = "BOOL")]
    distinct_roles: Option<bool>,
    /// Why, in public.
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// Where the draft goes; it must not exist.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

fn replacement(text: &str) -> Result<(String, PublicKey), String> {
    let (name, key) = text.split_once(':').ok_or("write NAME:KEY")?;
    Ok((name.into(), key.parse().map_err(|e| format!("{e}"))?))
}

/// Does what `command` says.
///
/// # Errors
/// When a file, a name or a key is wrong, or the coordinator refuses or cannot be reached.
pub async fn run(command: &Command, context: &Context) -> Result<Exit, Failure> {
    match command {
        Command::Show { file: Some(path), output } => {
            let envelope = file::read_envelope::<Committee>(path)?;
            let (committee, digest) = envelope.peek::<Committee>().map_err(|e| Failure::document(path, e))?;
            governance::show(&envelope, &committee, digest, *output, table)?;
        }
        Command::Show { file: None, output } => {
            let (chain, report) = chain(context).await?;
            match output {
                Output::Json => print::out(&print::json(chain.newest())?)?,
                Output::Table => {
                    print::out(&table(chain.newest()))?;
                    let digests = [("digest", chain.digest()), ("pinned committee", chain.root())];
                    print::out(&print::pairs(&digests.map(|(name, digest)| (name, digest.to_string()))))?;
                    print::note(&format!("{} committees since the pinned one", report.committees.len()));
                }
            }
        }
        Command::New(draft) => {
            let (chain, _) = chain(context).await?;
            let prev = (chain.newest().seq > 0).then(|| chain.digest());
            let next = Committee { prev, issued: Some(context.now), ..next(chain.newest(), draft)? };
            let envelope = Envelope::sign(&next, &[])
                .map_err(|e| Failure::input(e.to_string(), "mend what the message names; nothing was written"))?;
            file::write_new(&draft.out, &envelope.to_json())?;
            print::out(&table(&next))?;
            let old = chain.newest();
            print::note(&format!("{} members of committee {} must sign it, by its rules", old.needed, old.seq));
        }
        Command::Sign { file, key } => {
            let key = key_file::read(key)?;
            let envelope = file::read_envelope::<Committee>(file)?;
            let (committee, digest) = envelope.peek::<Committee>().map_err(|e| Failure::document(file, e))?;
            print::out(&table(&committee))?;
            let signatures = permit::sign::<Committee>(file, envelope, &key)?;
            print::out(&print::pairs(&[
                ("digest", digest.to_string()),
                ("signed by", key.public().fingerprint().to_string()),
                ("signatures", signatures.to_string()),
            ]))?;
        }
        Command::Submit { file, output } => {
            let envelope = file::read_envelope::<Committee>(file)?;
            let mut door = context.door().await?;
            let _spinner = Spinner::start("handing in the committee");
            let report = door.put(&envelope).await?;
            return print::put(&report, *output, false);
        }
    }
    Ok(Exit::Done)
}

/// The chain of committees, walked from the coordinator's pinned one.
/// The committees, walked from the one that the coordinator pins.
///
/// # Errors
/// When they cannot be fetched, or a link does not verify.
pub async fn chain(context: &Context) -> Result<(CommitteeChain, TrustReport), Failure> {
    let report = context.door().await?.trust().await?;
    report.committee.check().map_err(|rule| Failure::answer("committee", rule))?;
    let mut chain = CommitteeChain::pinned(report.committee.clone());
    for link in &report.committees {
        chain.take(link, |_| false)?;
    }
    Ok((chain, report))
}

/// The committee after `current`, by number and contents.
fn next(current: &Committee, draft: &Draft) -> Result<Committee, Failure> {
    let mut next = Committee { seq: current.seq + 1, reason: draft.reason.clone(), ..current.clone() };
    let unknown =
        |name: &str| Failure::input(format!("the committee has no member {name}"), "see `sekisho committee show`");
    for name in &draft.remove {
        let before = next.members.len();
        next.members.retain(|m| m.name != *name);
        if next.members.len() == before {
            return Err(unknown(name));
        }
    }
    for (name, key) in &draft.replace {
        next.members.iter_mut().find(|m| m.name == *name).ok_or_else(|| unknown(name))?.key = *key;
    }
    next.members.extend(draft.add.iter().cloned());
    next.needed = draft.needed.unwrap_or(next.needed);
    next.distinct_roles = draft.distinct_roles.unwrap_or(next.distinct_roles);
    if !draft.required_role.is_empty() {
        next.required_roles = draft.required_role.clone();
    }
    Ok(next)
}

fn table(committee: &Committee) -> String {
    let roles = if committee.required_roles.is_empty() { "none".into() } else { committee.required_roles.join(", ") };
    let facts = [
        ("committee", committee.seq.to_string()),
        ("issued", committee.issued.map(|at| at.to_rfc3339()).unwrap_or_default()),
        ("reason", committee.reason.clone()),
        ("must sign", format!("{} of {}", committee.needed, committee.members.len())),
        ("required roles", roles),
        ("roles differ", if committee.distinct_roles { "yes" } else { "no" }.into()),
    ];
    let member = |m: &CommitteeMember| [m.name.clone(), m.role.clone(), m.key.fingerprint().to_string()];
    let members = print::table(["member", "role", "key"], committee.members.iter().map(member));
    format!("{}\n{members}", print::pairs(&facts))
}

#[cfg(test)]
mod tests {
    use sekisho_protocol::keys::SecretKey;

    use super::*;

    fn member(name: &str, role: &str) -> CommitteeMember {
        let key = SecretKey::generate(&mut rand::rng()).public();
        CommitteeMember { name: name.into(), role: role.into(), key }
    }

    fn draft() -> Draft {
        Draft {
            add: Vec::new(),
            remove: Vec::new(),
            replace: Vec::new(),
            needed: None,
            required_role: Vec::new(),
            distinct_roles: None,
            reason: "an election".into(),
            out: PathBuf::new(),
        }
    }

    #[test]
    fn a_draft_changes_what_it_says_and_nothing_else() {
        let members = vec![member("sato", "ethicist"), member("kato", "lawyer"), member("ito", "patient")];
        let current = Committee::pinned(2, vec!["patient".into()], true, members.clone()).unwrap();
        let names = |c: &Committee| c.members.iter().map(|m| m.name.clone()).collect::<Vec<_>>();
        let same = next(&current, &draft()).unwrap();
        assert_eq!((same.seq, same.members.clone(), same.needed), (1, members, 2));
        assert_eq!((same.required_roles.clone(), same.distinct_roles), (vec!["patient".to_string()], true));
        let (new, key) = (member("abe", "lawyer"), SecretKey::generate(&mut rand::rng()).public());
        let changed = Draft {
            add: vec![new],
            remove: vec!["kato".into()],
            replace: vec![("ito".into(), key)],
            needed: Some(3),
            ..draft()
        };
        let changed = next(&current, &changed).unwrap();
        assert_eq!((names(&changed), changed.needed), (vec!["sato".into(), "ito".into(), "abe".into()], 3));
        assert_eq!(changed.members[1].key, key);
        for wrong in [
            Draft { remove: vec!["nobody".into()], ..draft() },
            Draft { replace: vec![("nobody".into(), key)], ..draft() },
        ] {
            assert_eq!(next(&current, &wrong).unwrap_err().exit(), Exit::Input);
        }
        let nobody_left = Draft { remove: vec!["ito".into()], ..draft() };
        assert!(next(&current, &nobody_left).unwrap().check().is_err(), "a required role must have a member");
    }
}
