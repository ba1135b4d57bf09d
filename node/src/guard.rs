//! Admission: from a message that arrived to a query that this hospital will answer.
//!
//! Each check leaves a type behind and the next stage asks for it: [`SignedQuery`] → [`VerifiedQuery`]
//! (who asks, under which permit, to whom, when) → [`AdmittedQuery`] (may it be answered, at this hour, by this
//! hospital). Nothing here depends on data, so refusals are distinct. No field of a request relaxes a check: the permit
//! and the hospital's own policy decide, the stricter wins.

use chrono::{DateTime, Duration, Utc};
use sekisho_aggregation::accounting::Ceilings;
use sekisho_protocol::{
    committee::Committee,
    digest::Digest,
    dsse::{Envelope, Verified},
    keys::PublicKey,
    orders::{Concern, Orders, obey},
    permit::{AuthorisedPerson, Permit, ReleaseKind},
    query::{MAX_LIFETIME, Query, Route, RoutedQuery},
    refusal::{Code, Refusal},
    roster::{Role, Roster},
    status::Status,
    units::{AttoDelta, MicroRho},
};

/// How far two clocks may differ.
const SKEW: Duration = Duration::seconds(60);

/// What the hospital pinned: whom it trusts, and its own limits.
#[derive(Clone, Debug)]
pub struct Trust {
    /// This hospital, by roster name.
    pub name: String,
    /// The coordinator's peer id.
    pub coordinator_peer: String,
    /// The hospital's own ceiling for one query.
    pub max_micro_rho_per_query: MicroRho,
    /// The hospital's own ceiling for the delta of one query; with zero no query may have private group keys.
    pub max_atto_delta_per_query: AttoDelta,
    /// The least number of patients in exact results; none where the hospital gives no exact results.
    pub exact_min_patients: Option<u32>,
}

impl Trust {
    /// What a regulator's order can concern in a use of `permit` here.
    pub fn concern<'a>(&'a self, permit: &'a Permit) -> Concern<'a> {
        Concern { permit, holder: Some(&self.name), coordinator: &self.coordinator_peer }
    }
}

/// The documents in force, each verified and fresh.
pub struct InForce {
    /// Who is a member.
    pub roster: Verified<Roster>,
    /// What is void.
    pub status: Verified<Status>,
    /// The committee that the permit was taken under.
    pub committee: Committee,
    /// What regulators suspended.
    pub orders: Vec<Verified<Orders>>,
}

/// A query and its route as they arrived.
pub struct SignedQuery(RoutedQuery);

/// A query whose signatures, addressee and hour are right, with the permit that it names.
pub struct VerifiedQuery {
    query: Verified<Query>,
    permit: Verified<Permit>,
    envelopes: Envelopes,
}

/// A query that this hospital will answer, if its SQL is admitted and the budget lasts.
pub struct AdmittedQuery {
    query: Verified<Query>,
    permit: Verified<Permit>,
    envelopes: Envelopes,
}

/// What was verified, as it was signed.
pub struct Envelopes {
    /// The person's query.
    pub query: Envelope,
    /// The committee's permit.
    pub permit: Envelope,
}

impl SignedQuery {
    /// Reads a routed query; the size is checked before anything is decoded.
    ///
    /// # Errors
    /// `too_large` or `malformed`.
    pub fn from_json(bytes: &[u8]) -> Result<Self, Refusal> {
        if bytes.len() > RoutedQuery::MAX_BYTES {
            let detail = format!("the query has {} bytes; at most {} are read", bytes.len(), RoutedQuery::MAX_BYTES);
            return Err(Refusal::new(Code::TooLarge, detail));
        }
        let routed = serde_json::from_slice(bytes).map_err(|_| Refusal::new(Code::Malformed, "not a routed query"))?;
        Ok(Self(routed))
    }

    /// The permit that the query names; not believed, only looked up.
    ///
    /// # Errors
    /// `malformed` or `too_large`.
    pub fn permit(&self) -> Result<Digest, Refusal> {
        Ok(self.0.query.peek::<Query>()?.0.permit)
    }

    /// Checks who asks whom, and when. `permit` is the envelope that [`permit`](Self::permit) names.
    ///
    /// # Errors
    /// `not_on_roster`, `not_addressed`, `stale_message`, `quorum_not_met`, `duplicate_signer`, `bad_signature`,
    /// `unknown_person`, `permit_unknown`, `regulator_order`.
    pub fn verify(
        self,
        permit: &Envelope,
        trust: &Trust,
        in_force: &InForce,
        now: DateTime<Utc>,
    ) -> Result<VerifiedQuery, Refusal> {
        let permit_envelope = permit.clone();
        let void = |key: Digest| in_force.status.void_keys.contains(&key);
        let permit = in_force.committee.verify_permit(permit, void)?;
        let persons: Vec<PublicKey> =
            permit.authorised_persons.iter().map(|p| p.key).filter(|key| counts(*key, &in_force.status)).collect();
        if !self.0.query.key_ids().any(|id| persons.iter().any(|key| key.fingerprint() == id)) {
            return Err(Refusal::new(Code::UnknownPerson, "no signature is by a person whom the permit authorises"));
        }
        let query: Verified<Query> = self.0.query.verify(&persons, 1)?;
        if query.permit != permit.digest() {
            return Err(Refusal::new(Code::PermitUnknown, "the query names another permit"));
        }
        let route = self.verify_route(in_force, trust)?;
        if route.query != query.digest() || route.to != trust.name {
            return Err(Refusal::new(Code::NotAddressed, "the route is for another query or another hospital"));
        }
        if !query.holders.contains(&trust.name) {
            return Err(Refusal::new(Code::NotAddressed, format!("the person did not ask {}", trust.name)));
        }
        if route.expires <= now || query.expires <= now {
            return Err(Refusal::new(Code::StaleMessage, "the message has expired"));
        }
        if query.expires > now + MAX_LIFETIME + SKEW || route.expires > now + MAX_LIFETIME + SKEW {
            return Err(Refusal::new(Code::StaleMessage, "the message expires more than 24 hours ahead"));
        }
        obey(in_force.orders.iter().map(Verified::document), &trust.concern(&permit), now)?;
        let envelopes = Envelopes { query: self.0.query, permit: permit_envelope };
        Ok(VerifiedQuery { query, permit, envelopes })
    }

    fn verify_route(&self, in_force: &InForce, trust: &Trust) -> Result<Verified<Route>, Refusal> {
        let member = in_force.roster.member_by_peer(&trust.coordinator_peer).filter(|m| m.role == Role::Coordinator);
        let Some(coordinator) = member else {
            return Err(Refusal::new(Code::NotOnRoster, "the pinned coordinator is not on the roster"));
        };
        if !counts(coordinator.signing_key, &in_force.status) {
            return Err(Refusal::new(Code::NotOnRoster, "the coordinator's signing key is void"));
        }
        Ok(self.0.route.verify(&[coordinator.signing_key], 1)?)
    }
}

/// Whether a key still counts under `status`.
fn counts(key: PublicKey, status: &Status) -> bool {
    !status.void_keys.contains(&key.fingerprint())
}

/// Whether a permit holds now: not revoked, superseded or suspended, and within its validity.
///
/// # Errors
/// `permit_revoked`, `permit_superseded`, `suspended`, `permit_not_yet_valid`, `permit_expired`.
pub fn in_force(permit: &Verified<Permit>, status: &Status, now: DateTime<Utc>) -> Result<(), Refusal> {
    if status.revokes(permit.digest()) {
        return Err(Refusal::new(Code::PermitRevoked, format!("permit {} was revoked", permit.id)));
    }
    if status.supersedes(&permit.id, permit.version) {
        return Err(Refusal::new(Code::PermitSuperseded, format!("permit {} has a newer version", permit.id)));
    }
    if status.suspended_studies.contains(&permit.study_id) {
        return Err(Refusal::new(Code::Suspended, format!("study {} is suspended", permit.study_id)));
    }
    if now < permit.validity.from {
        return Err(Refusal::new(Code::PermitNotYetValid, format!("it is valid from {}", permit.validity.from)));
    }
    if now >= permit.validity.to {
        return Err(Refusal::new(Code::PermitExpired, format!("it was valid to {}", permit.validity.to)));
    }
    Ok(())
}

impl VerifiedQuery {
    /// The question.
    pub fn query(&self) -> &Verified<Query> {
        &self.query
    }

    /// Who asks, by the id in the permit.
    pub fn person(&self) -> &str {
        signer(&self.query, &self.permit).map_or("", |p| &p.id)
    }

    /// The permit that the query names.
    pub fn permit(&self) -> &Verified<Permit> {
        &self.permit
    }

    /// That an exact result is asked for as it was permitted: it costs nothing, and nothing is narrowed.
    fn admit_exact(&self, trust: &Trust) -> Result<(), Refusal> {
        gives(ReleaseKind::Aggregated, trust.exact_min_patients)?;
        if self.query.micro_rho != MicroRho::ZERO {
            let detail = "the permit lists this query as aggregated: it costs nothing; ask with a rho of 0";
            return Err(Refusal::new(Code::BudgetQuery, detail));
        }
        if !self.query.terms.is_default() {
            let detail = "the permit lists this query as aggregated: ask without terms";
            return Err(Refusal::new(Code::Terms, detail));
        }
        Ok(())
    }

    /// Decides whether the query may be answered at this hour by this hospital. `synthetic` is whether its data set is
    /// declared so: only then may rho and delta pass the compiled-in ceilings.
    ///
    /// # Errors
    /// Those of [`in_force`], `holder_not_permitted`, `query_not_listed`, `budget_query`, `terms`, `policy`.
    pub fn admit(
        self,
        trust: &Trust,
        status: &Status,
        synthetic: bool,
        now: DateTime<Utc>,
    ) -> Result<AdmittedQuery, Refusal> {
        in_force(&self.permit, status, now)?;
        if !self.permit.holders().contains(&trust.name) {
            return Err(Refusal::new(Code::HolderNotPermitted, format!("the permit does not name {}", trust.name)));
        }
        if self.permit.allowed_queries.is_some() {
            let Some(entry) = self.permit.listed(&self.query.sql) else {
                return Err(Refusal::new(
                    Code::QueryNotListed,
                    "the permit lists its queries, and this is none of them",
                ));
            };
            if self.query.run > entry.max_runs {
                let detail =
                    format!("run {} asked; the permit allows {} of this query", self.query.run, entry.max_runs);
                return Err(Refusal::new(Code::QueryNotListed, detail));
            }
        }
        let asked = self.query.micro_rho;
        if self.permit.release_of(&self.query.sql) == ReleaseKind::Aggregated {
            self.admit_exact(trust)?;
            return Ok(AdmittedQuery { query: self.query, permit: self.permit, envelopes: self.envelopes });
        }
        if asked == MicroRho::ZERO || asked > self.permit.dp.micro_rho_per_query {
            let most = self.permit.dp.micro_rho_per_query;
            return Err(Refusal::new(
                Code::BudgetQuery,
                format!("{asked} asked; the permit allows 1 to {most} a query"),
            ));
        }
        let delta = self.query.terms.atto_delta;
        if delta > self.permit.dp.atto_delta_per_query {
            let most = self.permit.dp.atto_delta_per_query;
            return Err(Refusal::new(Code::BudgetQuery, format!("{delta} asked; the permit allows {most} a query")));
        }
        let ceilings = if synthetic { Ceilings::SYNTHETIC } else { Ceilings::PATIENTS };
        let checked = ceilings.check_query(asked).and_then(|()| ceilings.check_query_delta(delta));
        checked.map_err(|e| Refusal::new(Code::BudgetQuery, e.to_string()))?;
        if asked > trust.max_micro_rho_per_query {
            let most = trust.max_micro_rho_per_query;
            return Err(Refusal::new(Code::Policy, format!("{asked} asked; this hospital allows {most} a query")));
        }
        if delta > trust.max_atto_delta_per_query {
            let most = trust.max_atto_delta_per_query;
            return Err(Refusal::new(Code::Policy, format!("{delta} asked; this hospital allows {most} a query")));
        }
        Ok(AdmittedQuery { query: self.query, permit: self.permit, envelopes: self.envelopes })
    }
}

/// Whether a hospital with this least number of patients gives results of this kind.
///
/// # Errors
/// `policy`.
pub fn gives(kind: ReleaseKind, exact_min_patients: Option<u32>) -> Result<(), Refusal> {
    match (kind, exact_min_patients) {
        (ReleaseKind::Noised, _) | (ReleaseKind::Aggregated, Some(_)) => Ok(()),
        (ReleaseKind::Aggregated, None) => Err(Refusal::new(
            Code::Policy,
            "this hospital gives no exact (aggregated) results: exact.min_patients is not in its configuration",
        )),
    }
}

/// The authorised person who signed.
fn signer<'a>(query: &Verified<Query>, permit: &'a Permit) -> Option<&'a AuthorisedPerson> {
    permit.authorised_persons.iter().find(|p| query.signers().contains(&p.key.fingerprint()))
}

impl AdmittedQuery {
    /// Who asks.
    pub fn person(&self) -> Option<&AuthorisedPerson> {
        signer(&self.query, &self.permit)
    }

    /// The question.
    pub fn query(&self) -> &Verified<Query> {
        &self.query
    }

    /// The permit.
    pub fn permit(&self) -> &Verified<Permit> {
        &self.permit
    }

    /// Both as they were signed.
    pub fn envelopes(&self) -> &Envelopes {
        &self.envelopes
    }
}
