//! `sekisho review`: what a member of the committee says of an application, with the member's own key on the member's own
//! machine.
//!
//! Promises: before a member signs a permit, this program has fetched the application, checked who signed it, that the permit
//! names this very version, grants no more in any field, and that no field is missing which the law asks for; the
//! coordinator's word for any of that is not needed. Deliberately absent: the quorum, which those count who know the committee.

use std::path::{Path, PathBuf};

use chrono::NaiveDate;
use clap::{Args, Subcommand, ValueEnum};
use sekisho_protocol::{
    access::Item,
    decision::{Outcome, RefusedApplication},
    digest::Digest,
    dsse::{Document, Envelope},
    key_file,
    keys::SecretKey,
    permit::Permit,
    refusal::{Code, Refusal},
    review::{Review, Step, Verdict},
};
use serde::Serialize;

use super::{
    Context,
    application::{self, Fetched, Recompute},
    door::Door,
    failure::{Exit, Failure},
    file, grant, permit,
    print::{self, ListOutput, Output},
};
use crate::report::ReviewReport;

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
        output: ListOutput,
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
            member.say((Verdict::Complete, completeness), reasons, None, who.output, context).await
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
            let exit = member.say(what, &saying.reasons, Some(digest), saying.who.output, context).await?;
            sign::<Permit>(path, envelope, &member.key)?;
            Ok(exit)
        }
        Command::Refuse { saying, decision: path, date } => {
            let mut member = Member::of(&saying.who.application, &saying.who.key, context).await?;
            if !path.exists() {
                let date = date.unwrap_or(context.now.date_naive());
                let refused = member.refusal(&saying.reasons, date);
                let envelope = Envelope::sign(&refused, &[]).map_err(|e| Failure::document(path, e))?;
                file::write_new(path, &envelope.to_json())?;
            }
            let envelope = file::read_envelope::<RefusedApplication>(path)?;
            let (refused, digest) = envelope.peek::<RefusedApplication>().map_err(|e| Failure::document(path, e))?;
            member.is_meant(refused.digest, &refused.recused)?;
            let what = (Verdict::Refuse, lawfulness);
            let exit = member.say(what, &saying.reasons, Some(digest), saying.who.output, context).await?;
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
    member.say((verdict, step), reasons, None, who.output, context).await
}

/// Signs the file; a member who has signed it already need not again.
fn sign<D: Document>(path: &Path, envelope: Envelope, key: &SecretKey) -> Result<(), Failure> {
    match permit::sign::<D>(path, envelope, key) {
        Ok(signatures) => print::note(&format!("{} has {signatures} signatures now", path.display())),
        Err(failure) if failure.code() == Code::DuplicateSigner.as_str() => {
            print::note(&format!("{} carries this key's signature already", path.display()));
        }
        Err(failure) => return Err(failure),
    }
    Ok(())
}

/// A member, the newest version of an application, and what was said of it.
struct Member {
    key: SecretKey,
    door: Door,
    fetched: Fetched,
    reviews: Vec<(ReviewReport, Review)>,
}

impl Member {
    async fn of(application: &str, key: &Path, context: &Context) -> Result<Self, Failure> {
        let key = key_file::read(key)?;
        let mut door = context.door().await?;
        let versions = application::versions(application, &key, &mut door, context.now).await?;
        let unknown = || Refusal::new(Code::ApplicationUnknown, format!("no application {application} is known"));
        let fetched = versions.into_iter().next().ok_or_else(unknown)?;
        let item = Item::Reviews { application: application.into() };
        let reports: Vec<ReviewReport> = door.read(item, &key, context.now).await?;
        let mut reviews = Vec::new();
        for report in reports {
            let (review, _) = report.envelope.peek::<Review>().map_err(|e| Failure::answer("review", e))?;
            reviews.push((report, review));
        }
        // The latest came first; people read on from the earliest.
        reviews.reverse();
        Ok(Self { key, door, fetched, reviews })
    }

    fn is_complete(&self) -> Result<(), Failure> {
        let application = self.fetched.application.document();
        application.permissible_purposes().map_err(Refusal::from)?;
        let missing = application::missing(application)?;
        if missing.is_empty() { Ok(()) } else { Err(application::incomplete(&missing).into()) }
    }

    /// The keys of those who declared a conflict, as far as the coordinator says.
    fn conflicted(&self) -> Vec<Digest> {
        let conflicts = self.reviews.iter().filter(|(_, review)| review.verdict == Verdict::Conflict);
        conflicts.map(|(_, review)| review.member).collect()
    }

    /// That a decision is about this version, and that no conflict stands in the way.
    fn is_meant(&self, digest: Digest, recused: &[Digest]) -> Result<(), Failure> {
        let newest = self.fetched.application.digest();
        if digest != newest {
            let detail =
                format!("the document is about {}, and the newest version is {}", digest.short(), newest.short());
            return Err(Refusal::new(Code::ApplicationUnknown, detail).into());
        }
        let own = self.key.public().fingerprint();
        let conflicted = self.conflicted();
        if conflicted.contains(&own) || recused.contains(&own) {
            return Err(Refusal::new(Code::ConflictOfInterest, "this key's owner is recused").into());
        }
        match conflicted.iter().find(|key| !recused.contains(key)) {
            Some(key) => {
                let detail = format!("key {key} declared a conflict of interest and is not among the recused");
                Err(Refusal::new(Code::ConflictOfInterest, detail).into())
            }
            None => Ok(()),
        }
    }

    /// That the permit grants this version of the application and no more.
    fn agrees(&self, permit: &Permit) -> Result<(), Failure> {
        let digest = permit.application.ok_or_else(|| {
            Refusal::new(
                Code::ApplicationUnknown,
                "the permit names no application; see `sekisho permit new --application`",
            )
        })?;
        self.is_meant(digest, &permit.decision.recused)?;
        grant::short_enough(permit)?;
        permit.within(self.fetched.application.document()).map_err(Refusal::from)?;
        Ok(())
    }

    fn refusal(&self, reasons: &str, date: NaiveDate) -> RefusedApplication {
        let application = self.fetched.application.document();
        RefusedApplication {
            application: application.id.clone(),
            version: application.version,
            digest: self.fetched.application.digest(),
            basis: application.basis,
            outcome: Outcome::Refused,
            reasons: reasons.into(),
            date,
            recused: self.conflicted(),
        }
    }

    async fn say(
        &mut self,
        (verdict, step): (Verdict, Step),
        reasons: &str,
        decision: Option<Digest>,
        output: Output,
        context: &Context,
    ) -> Result<Exit, Failure> {
        let review = Review {
            application: self.fetched.application.id.clone(),
            digest: self.fetched.application.digest(),
            member: self.key.public().fingerprint(),
            step,
            verdict,
            reasons: reasons.into(),
            decision,
            at: context.now,
        };
        let envelope = Envelope::sign(&review, &[&self.key])
            .map_err(|e| Failure::input(e.to_string(), "mend what the message names; nothing was sent"))?;
        print::put(&self.door.put(&envelope).await?, output, false)
    }

    async fn show(&self, recompute: &Recompute, output: Output, context: &Context) -> Result<Exit, Failure> {
        let said: Vec<_> =
            self.reviews.iter().map(|(report, review)| Said { member: report.member.as_deref(), review }).collect();
        let newest = self.fetched.application.digest();
        let row = |said: &Said| {
            let version = if said.review.digest == newest { "newest" } else { "earlier" };
            let member = said.member.map_or_else(|| said.review.member.short(), str::to_string);
            let (step, verdict) = (permit::word(&said.review.step), said.review.verdict.as_str().into());
            [said.review.at.to_rfc3339(), member, version.into(), step, verdict, said.review.reasons.clone()]
        };
        let header = ["at", "member", "version", "step", "verdict", "reasons"];
        let reviews = serde_json::to_value(&said).map_err(|e| Failure::input(e.to_string(), "use --output table"))?;
        let said = Some((print::table(header, said.iter().map(row)), reviews));
        application::show(&self.fetched, recompute, said, output, context).await?;
        Ok(Exit::Done)
    }
}

/// What one member said, as programs read it.
#[derive(Serialize)]
struct Said<'a> {
    member: Option<&'a str>,
    review: &'a Review,
}
