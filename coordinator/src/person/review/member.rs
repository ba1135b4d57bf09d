//! A member of the committee before an application: what was said of it, and what this machine checks before the member signs.

use std::path::Path;

use chrono::NaiveDate;
use sekisho_protocol::{
    access::Item,
    committee::CommitteeChain,
    decision::{Outcome, RefusedApplication},
    digest::Digest,
    dsse::Envelope,
    key_file,
    keys::SecretKey,
    permit::Permit,
    refusal::{Code, Refusal},
    review::{Review, Step, Verdict},
};
use serde::Serialize;

use super::Who;
use crate::{
    person::{
        Context,
        application::{self, Fetched, Recompute},
        committee,
        door::Door,
        failure::{Exit, Failure},
        file, permit,
        print::{self, Output},
    },
    report::ReviewReport,
};

/// What was said of an application, the earliest first.
async fn reviews(
    application: &str,
    key: &SecretKey,
    door: &mut Door,
    context: &Context,
) -> Result<Vec<(ReviewReport, Review)>, Failure> {
    let item = Item::Reviews { application: application.into() };
    let reports: Vec<ReviewReport> = door.read(item, key, context.now).await?;
    let read = |report: ReviewReport| {
        let (review, _) = report.envelope.peek::<Review>().map_err(|e| Failure::answer("review", e))?;
        Ok((report, review))
    };
    // The latest came first.
    reports.into_iter().rev().map(read).collect()
}

/// The members in force who declared a conflict, under this key or an earlier one, as far as the coordinator says.
fn conflicted(reviews: &[(ReviewReport, Review)], committees: &CommitteeChain) -> Vec<Digest> {
    let conflicts = reviews.iter().filter(|(_, review)| review.verdict == Verdict::Conflict);
    committees.seats_of(conflicts.map(|(_, review)| review.member)).into_iter().collect()
}

/// The keys of the members in force who declared a conflict over an application, as far as the coordinator says.
///
/// # Errors
/// When the owner of `key` may not read it, or the coordinator cannot be reached.
pub async fn conflicts(application: &str, key: &Path, context: &Context) -> Result<Vec<Digest>, Failure> {
    let key = key_file::read(key)?;
    let reviews = reviews(application, &key, &mut context.door().await?, context).await?;
    Ok(conflicted(&reviews, &committee::chain(context).await?.0))
}

/// A member, the newest version of an application, and what was said of it.
pub struct Member {
    /// The member's key.
    pub key: SecretKey,
    door: Door,
    fetched: Fetched,
    reviews: Vec<(ReviewReport, Review)>,
    committees: CommitteeChain,
}

impl Member {
    /// The owner of the key at `key`, before the newest version of `application`.
    ///
    /// # Errors
    /// When they may not read it, or the coordinator cannot be reached.
    pub async fn of(application: &str, key: &Path, context: &Context) -> Result<Self, Failure> {
        let key = key_file::read(key)?;
        let mut door = context.door().await?;
        let versions = application::versions(application, &key, &mut door, context.now).await?;
        let unknown = || Refusal::new(Code::ApplicationUnknown, format!("no application {application} is known"));
        let fetched = versions.into_iter().next().ok_or_else(unknown)?;
        let reviews = reviews(application, &key, &mut door, context).await?;
        let (committees, _) = committee::chain(context).await?;
        Ok(Self { key, door, fetched, reviews, committees })
    }

    /// That nothing is missing which the law asks for, and no purpose is prohibited.
    ///
    /// # Errors
    /// `application_incomplete` with the fields, or `purpose_prohibited`.
    pub fn is_complete(&self) -> Result<(), Failure> {
        let application = self.fetched.application.document();
        application.permissible_purposes().map_err(Refusal::from)?;
        let missing = application::missing(application)?;
        if missing.is_empty() { Ok(()) } else { Err(application::incomplete(&missing).into()) }
    }

    /// That a decision is about this version, and that no conflict stands in the way.
    ///
    /// # Errors
    /// `application_unknown` for another version, `conflict_of_interest`.
    pub fn is_meant(&self, digest: Digest, recused: &[Digest]) -> Result<(), Failure> {
        let newest = self.fetched.application.digest();
        if digest != newest {
            let detail =
                format!("the document is about {}, and the newest version is {}", digest.short(), newest.short());
            return Err(Refusal::new(Code::ApplicationUnknown, detail).into());
        }
        let own = self.key.public().fingerprint();
        let conflicted = conflicted(&self.reviews, &self.committees);
        if conflicted.contains(&own) || recused.contains(&own) {
            return Err(Refusal::new(Code::ConflictOfInterest, "this key's owner is recused").into());
        }
        match conflicted.iter().find(|key| !recused.contains(key)) {
            Some(key) => {
                let name = self.committees.seat(*key).map_or("a member", |member| member.name.as_str());
                let detail = format!("{name} (key {key}) declared a conflict of interest and is not recused");
                Err(Refusal::new(Code::ConflictOfInterest, detail).into())
            }
            None => Ok(()),
        }
    }

    /// That the permit grants this version of the application and no more.
    ///
    /// # Errors
    /// `wider_than_application` with the field, or as [`Self::is_meant`].
    pub fn agrees(&self, permit: &Permit) -> Result<(), Failure> {
        let digest = permit.application.ok_or_else(|| {
            Refusal::new(
                Code::ApplicationUnknown,
                "the permit names no application; see `sekisho permit new --application`",
            )
        })?;
        self.is_meant(digest, &permit.decision.recused)?;
        permit.within(self.fetched.application.document()).map_err(Refusal::from)?;
        Ok(())
    }

    /// The committee's refusal, which nobody has signed.
    pub fn refusal(&self, reasons: &str, date: NaiveDate) -> RefusedApplication {
        let application = self.fetched.application.document();
        RefusedApplication {
            application: application.id.clone(),
            version: application.version,
            digest: self.fetched.application.digest(),
            basis: application.basis,
            outcome: Outcome::Refused,
            reasons: reasons.into(),
            date,
            recused: conflicted(&self.reviews, &self.committees),
        }
    }

    /// Signs what the member says of the newest version, and hands it in, or writes it into a file.
    ///
    /// # Errors
    /// When the reasons are missing or too long, the file is there, or the coordinator refuses.
    pub async fn say(
        &mut self,
        (verdict, step): (Verdict, Step),
        reasons: &str,
        decision: Option<Digest>,
        who: &Who,
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
        if let Some(path) = &who.out {
            return written(path, &envelope);
        }
        print::put(&self.door.put(&envelope).await?, who.output, false)
    }

    /// Prints the application with all that was said of it.
    ///
    /// # Errors
    /// When a dry run cannot be made, or the text not be written.
    pub async fn show(&self, recompute: &Recompute, output: Output, context: &Context) -> Result<Exit, Failure> {
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

/// A signed review in a file of its own, that is to be handed in.
///
/// # Errors
/// When the file is there, or cannot be written.
pub fn written(path: &Path, envelope: &Envelope) -> Result<Exit, Failure> {
    file::write_new(path, &envelope.to_json())?;
    print::note(&format!("{} has the signed review; nothing was handed in yet", path.display()));
    Ok(Exit::Done)
}

/// What one member said, as programs read it.
#[derive(Serialize)]
struct Said<'a> {
    member: Option<&'a str>,
    review: &'a Review,
}
