//! `sekisho review`: what a member of the committee says of an application, with the member's own key on the member's own
//! machine.
//!
//! Promises: before a member signs a permit, this program has fetched the application, checked who signed it, that the permit
//! names this very version, grants no more in any field, and that no field is missing which the law asks for; the
//! coordinator's word for any of that is not needed. Deliberately absent: the quorum, which those count who know the committee.

mod member;

use std::path::{Path, PathBuf};

use chrono::NaiveDate;
use clap::{Args, Subcommand, ValueEnum};
use sekisho_protocol::{
    decision::RefusedApplication,
    dsse::{Document, Envelope},
    keys::SecretKey,
    permit::Permit,
    refusal::Code,
    review::{Step, Verdict},
};

use self::member::Member;
pub use self::member::{conflicts, written};
use super::{
    Context,
    application::{self, Recompute},
    failure::{Exit, Failure},
    file, permit,
    print::{self, Output},
};

use crate::listing::Listing;

/// What a member does.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List the applications, and how far each is.
    #[command(after_help = "Example:\n  sekisho review list --key member.pem")]
    List {
        /// The member's key.
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
        /// How the list is printed.
        #[arg(long, value_enum, default_value = "table")]
        output: Listing,
    },
    /// Print an application with all that members said of it.
    #[command(after_help = "Example:\n  sekisho review show application-1 --key member.pem --recompute")]
    Show {
        /// The application's id.
        application: String,
        /// The member's key, or that of a person of the application.
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
        #[command(flatten)]
        recompute: Recompute,
        /// For people or for programs.
        #[arg(long, value_enum, default_value = "table")]
        output: Output,
    },
    /// Remark on the newest version.
    #[command(after_help = "Example:\n  sekisho review comment application-1 --reasons 'good' --key member.pem")]
    Comment {
        #[command(flatten)]
        saying: Saying,
        /// Which question it is about.
        #[arg(long, value_enum, default_value = "completeness")]
        step: Question,
    },
    /// Ask for a new version.
    #[command(
        after_help = "Example:\n  sekisho review request-changes application-1 --reasons 'which ward?' --key member.pem"
    )]
    RequestChanges {
        #[command(flatten)]
        saying: Saying,
        /// Which question it is about.
        #[arg(long, value_enum, default_value = "completeness")]
        step: Question,
    },
    /// Find the newest version complete.
    #[command(after_help = "Example:\n  sekisho review complete application-1 --key member.pem")]
    Complete {
        #[command(flatten)]
        who: Who,
        /// A remark.
        #[arg(long, value_name = "TEXT", default_value = "")]
        reasons: String,
    },
    /// Find the use lawful: compares a permit with the application, and signs it.
    #[command(
        after_help = "Example:\n  sekisho review approve application-1 --permit permit.dsse.json --reasons 'in the public interest' --key member.pem"
    )]
    Approve {
        #[command(flatten)]
        saying: Saying,
        /// The permit of `sekisho permit new --application`; the signature is added in place.
        #[arg(long, value_name = "FILE")]
        permit: PathBuf,
    },
    /// Find the use unlawful: signs the committee's refusal.
    #[command(
        after_help = "Example:\n  sekisho review refuse application-1 --decision refusal.dsse.json --reasons 'no benefit' --key member.pem"
    )]
    Refuse {
        #[command(flatten)]
        saying: Saying,
        /// The refusal, which is made with these reasons if it is not there; the signature is added in place.
        #[arg(long, value_name = "FILE")]
        decision: PathBuf,
        /// The day of the decision, for a refusal that is made [default: today].
        #[arg(long, value_name = "DATE")]
        date: Option<NaiveDate>,
    },
    /// Declare a conflict of interest, and take no part from here on.
    #[command(
        after_help = "Example:\n  sekisho review conflict application-1 --reasons 'my own unit' --key member.pem"
    )]
    Conflict {
        #[command(flatten)]
        saying: Saying,
    },
    /// Hand in a refusal that a quorum signed.
    #[command(after_help = "Example:\n  sekisho review submit refusal.dsse.json")]
    Submit {
        /// The refusal.
        file: PathBuf,
        /// For people or for programs.
        #[arg(long, value_enum, default_value = "table")]
        output: Output,
    },
}

/// Whose word about which application.
#[derive(Debug, Args)]
pub struct Who {
    /// The application's id.
    application: String,
    /// The member's key.
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// Only write the signed review into this file, which must not exist, and hand nothing in: the committee's page takes it.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// For people or for programs.
    #[arg(long, value_enum, default_value = "table")]
    output: Output,
}

/// A word with its reasons.
#[derive(Debug, Args)]
pub struct Saying {
    #[command(flatten)]
    who: Who,
    /// Why.
    #[arg(long, value_name = "TEXT")]
    reasons: String,
}

/// One of the two questions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Question {
    /// Is it complete?
    Completeness,
    /// Is it lawful?
    Lawfulness,
}

impl From<Question> for Step {
    fn from(question: Question) -> Self {
        match question {
            Question::Completeness => Self::Completeness,
            Question::Lawfulness => Self::Lawfulness,
        }
    }
}

/// Does what `command` says.
///
/// # Errors
/// When the permit is wider than the application, the application is incomplete, or the coordinator refuses.
pub async fn run(command: &Command, context: &Context) -> Result<Exit, Failure> {
    let (completeness, lawfulness) = (Step::Completeness, Step::Lawfulness);
    match command {
        Command::List { key, output } => {
            application::list(key, *output, context).await?;
            Ok(Exit::Done)
        }
        Command::Show { application, key, recompute, output } => {
            let member = Member::of(application, key, context).await?;
            member.show(recompute, *output, context).await
        }
        Command::Comment { saying, step } => {
            say(&saying.who, Verdict::Comment, (*step).into(), &saying.reasons, context).await
        }
        Command::RequestChanges { saying, step } => {
            say(&saying.who, Verdict::ChangesRequested, (*step).into(), &saying.reasons, context).await
        }
        Command::Complete { who, reasons } => {
            let mut member = Member::of(&who.application, &who.key, context).await?;
            member.is_complete()?;
            member.say((Verdict::Complete, completeness), reasons, None, who, context).await
        }
        Command::Conflict { saying } => {
            say(&saying.who, Verdict::Conflict, completeness, &saying.reasons, context).await
        }
        Command::Approve { saying, permit: path } => {
            let mut member = Member::of(&saying.who.application, &saying.who.key, context).await?;
            let envelope = file::read_envelope::<Permit>(path)?;
            let (granted, digest) = envelope.peek::<Permit>().map_err(|e| Failure::document(path, e))?;
            member.is_complete()?;
            member.agrees(&granted)?;
            print::out(&permit::table(&granted))?;
            let what = (Verdict::Approve, lawfulness);
            let exit = member.say(what, &saying.reasons, Some(digest), &saying.who, context).await?;
            sign::<Permit>(path, envelope, &member.key)?;
            Ok(exit)
        }
        Command::Refuse { saying, decision: path, date } => {
            let mut member = Member::of(&saying.who.application, &saying.who.key, context).await?;
            let envelope = if path.exists() {
                file::read_envelope::<RefusedApplication>(path)?
            } else {
                let date = date.unwrap_or(context.now.date_naive());
                let refused = member.refusal(&saying.reasons, date);
                Envelope::sign(&refused, &[]).map_err(|e| Failure::document(path, e))?
            };
            let (refused, digest) = envelope.peek::<RefusedApplication>().map_err(|e| Failure::document(path, e))?;
            member.is_meant(refused.digest, &refused.recused)?;
            let what = (Verdict::Refuse, lawfulness);
            let exit = member.say(what, &saying.reasons, Some(digest), &saying.who, context).await?;
            sign::<RefusedApplication>(path, envelope, &member.key)?;
            Ok(exit)
        }
        Command::Submit { file: path, output } => {
            let envelope = file::read_envelope::<RefusedApplication>(path)?;
            print::put(&context.door().await?.put(&envelope).await?, *output, false)
        }
    }
}

async fn say(who: &Who, verdict: Verdict, step: Step, reasons: &str, context: &Context) -> Result<Exit, Failure> {
    let mut member = Member::of(&who.application, &who.key, context).await?;
    member.say((verdict, step), reasons, None, who, context).await
}

/// Signs the file; a member who has signed it already need not again.
fn sign<D: Document>(path: &Path, envelope: Envelope, key: &SecretKey) -> Result<(), Failure> {
    match permit::sign::<D>(path, envelope, key) {
        Ok(1) => print::note(&format!("{} carries 1 signature now: the next member's turn", path.display())),
        Ok(signatures) => print::note(&format!("{} carries {signatures} signatures now", path.display())),
        Err(failure) if failure.code() == Code::DuplicateSigner.as_str() => {
            print::note(&format!("{} carries this key's signature already", path.display()));
        }
        Err(failure) => return Err(failure),
    }
    Ok(())
}
