//! From bytes to a [`SignedQuery`] and a [`PermittedQuery`]: what the coordinator checks before it troubles a hospital.
//!
//! Every hospital checks all of this again, and more; a coordinator that skipped it would gain nothing.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use sekisho_aggregation::plan::PrivatePlan;
use sekisho_protocol::{
    digest::Digest,
    dsse::{Envelope, Verified},
    permit::Permit,
    query::{MAX_LIFETIME, Query},
    refusal::{Code, Refusal},
    roster::{Member, Role},
};

use crate::documents::{Current, Documents, Held};

/// The most numbers of one round, over hospitals, cells and measures: 256 MiB.
const MAX_NUMBERS: usize = 1 << 24;

/// A query by an authorised person, within a permit in force, that was understood.
pub struct PermittedQuery {
    /// The query.
    pub query: Verified<Query>,
    /// The same as it was signed, for the hospitals.
    pub envelope: Envelope,
    /// What makes the question the same one.
    pub key: Digest,
    /// The permit.
    pub permit: Arc<Held<Permit>>,
    /// What every release of it must be.
    pub plan: PrivatePlan,
    /// The hospitals asked, in the query's order.
    pub members: Vec<Member>,
    /// The documents that all this was checked with.
    pub current: Arc<Current>,
}

/// A query that a person whom its permit authorises signed; nothing else of it was looked at.
pub struct SignedQuery {
    query: Verified<Query>,
    envelope: Envelope,
    permit: Arc<Held<Permit>>,
    current: Arc<Current>,
}

fn refuse<T>(code: Code, detail: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal::new(code, detail))
}

impl SignedQuery {
    /// Checks who asks, under which permit.
    ///
    /// # Errors
    /// The first refusal, in that order.
    pub fn of(documents: &Documents, envelope: &[u8]) -> Result<Self, Refusal> {
        let envelope = Envelope::from_json::<Query>(envelope)?;
        let (claimed, _) = envelope.peek::<Query>()?;
        let current = documents.current();
        let permit = current.permit(claimed.permit)?.clone();
        let query = verify(&envelope, &permit, &current)?;
        Ok(Self { query, envelope, permit, current })
    }

    /// The study, and the fingerprint of the key that signed.
    pub fn asker(&self) -> Option<(String, Digest)> {
        Some((self.permit.study_id.clone(), *self.query.signers().first()?))
    }

    /// Checks whom is asked, for how much, and what.
    ///
    /// # Errors
    /// The first refusal, in that order.
    pub async fn permitted(self, now: DateTime<Utc>) -> Result<PermittedQuery, Refusal> {
        let Self { query, envelope, permit, current } = self;
        let members = check(&query, &permit, &current, now)?;
        let schema = current.schema(permit.schema)?.clone();
        let (sql, granted, rho, terms) = (query.sql.clone(), permit.clone(), query.micro_rho, query.terms.clone());
        // Planning takes processor time in proportion to the SQL, so it keeps off the threads that answer.
        let planning =
            tokio::task::spawn_blocking(move || PrivatePlan::analyse_with(&sql, &schema, &granted, rho, &terms));
        let plan = planning.await.map_err(|_| Refusal::new(Code::SqlUnsupported, "the SQL could not be planned"))??;
        let numbers = plan.most_numbers().saturating_mul(members.len());
        if numbers > MAX_NUMBERS {
            let detail = format!("hospitals times numbers are {numbers}; at most {MAX_NUMBERS} are combined");
            return refuse(Code::TooLarge, detail);
        }
        Ok(PermittedQuery { key: query.key(), query, envelope, permit, plan, members, current })
    }
}

/// The query, when a person whom the permit authorises signed it.
fn verify(envelope: &Envelope, permit: &Permit, current: &Current) -> Result<Verified<Query>, Refusal> {
    let known = permit.authorised_persons.iter().map(|person| person.key);
    let known: Vec<_> = known.filter(|key| !current.voids(key.fingerprint())).collect();
    if !envelope.key_ids().any(|id| known.iter().any(|key| key.fingerprint() == id)) {
        return refuse(Code::UnknownPerson, format!("permit {} names nobody with the key of this query", permit.id));
    }
    Ok(envelope.verify(&known, 1)?)
}

/// The study that a signed query is of, and the fingerprint of the key that signed it, when some permit authorises its owner to
/// ask; the study is empty when the query's permit is not known here. Nothing else is believed of it.
pub fn asked_by(current: &Current, envelope: &[u8]) -> Option<(String, Digest)> {
    let envelope = Envelope::from_json::<Query>(envelope).ok()?;
    let key = envelope.key_ids().find_map(|id| current.person_key(id))?;
    let query = envelope.verify::<Query>(&[key], 1).ok()?;
    let study = current.permit(query.permit).map(|permit| permit.study_id.clone()).unwrap_or_default();
    Some((study, key.fingerprint()))
}

/// Whether anything may be asked under `permit` at `now`.
///
/// # Errors
/// `permit_revoked`, `permit_superseded`, `suspended`, `permit_not_yet_valid`, `permit_expired` or an order's code; `stale_status`
/// when nobody knows.
pub fn in_force(permit: &Held<Permit>, current: &Current, now: DateTime<Utc>) -> Result<(), Refusal> {
    let status = current.status(now)?;
    if status.revokes(permit.digest()) {
        return refuse(Code::PermitRevoked, format!("permit {} is revoked", permit.id));
    }
    if status.supersedes(&permit.id, permit.version) {
        return refuse(
            Code::PermitSuperseded,
            format!("permit {} has a newer version than {}", permit.id, permit.version),
        );
    }
    if status.suspended_studies.contains(&permit.study_id) {
        return refuse(Code::Suspended, format!("study {} is suspended", permit.study_id));
    }
    current.obey(permit, now)?;
    if now < permit.validity.from {
        return refuse(Code::PermitNotYetValid, format!("permit {} is valid from {}", permit.id, permit.validity.from));
    }
    if now >= permit.validity.to {
        return refuse(Code::PermitExpired, format!("permit {} was valid until {}", permit.id, permit.validity.to));
    }
    Ok(())
}

fn check(query: &Query, permit: &Held<Permit>, current: &Current, now: DateTime<Utc>) -> Result<Vec<Member>, Refusal> {
    in_force(permit, current, now)?;
    if now >= query.expires {
        return refuse(Code::StaleMessage, format!("the query expired at {}; it is {now}", query.expires));
    }
    if query.expires > now + MAX_LIFETIME {
        return refuse(Code::StaleMessage, format!("the query expires more than {} h ahead", MAX_LIFETIME.num_hours()));
    }
    if query.micro_rho > permit.dp.micro_rho_per_query {
        let (asked, most) = (query.micro_rho, permit.dp.micro_rho_per_query);
        return refuse(Code::BudgetQuery, format!("the query asks for {asked}; the permit allows {most} a query"));
    }
    let (roster, permitted) = (current.roster(now)?, permit.holders());
    let member = |name: &String| {
        if !permitted.contains(name) {
            return refuse(Code::HolderNotPermitted, format!("permit {} does not name hospital {name}", permit.id));
        }
        match roster.member(name).filter(|member| member.role == Role::Node) {
            Some(member) => Ok(member.clone()),
            None => refuse(Code::NotOnRoster, format!("roster {} has no hospital {name}", roster.seq)),
        }
    };
    query.holders.iter().map(member).collect()
}
