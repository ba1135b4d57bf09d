//! A decision about an exact result becomes durable: the record of one that is let out, and the refusal.

use chrono::{DateTime, Utc};
use sekisho_aggregation::exact::{Claim, Cohort, History};
use sekisho_protocol::{
    dsse::Envelope,
    keys::SecretKey,
    receipt::ReservationRecord,
    record::RefusalRecord,
    refusal::{Code, Refusal},
};

use super::{
    ExactError,
    review::{Bound, Opened},
};
use crate::{
    answer::Answering,
    ledger::{Asked, ChargeRequest, Cost, ExactRequest, Ledger, LedgerError, NewRelease, Recorded, Run, Said},
};

/// The hospital's history as a reviewed run asks for it.
pub(super) struct Desk<'a> {
    pub(super) node: &'a Answering,
    pub(super) opened: &'a Opened,
    pub(super) bound: &'a Bound,
    pub(super) who: &'a str,
    pub(super) said: Said<'a>,
}

impl History for Desk<'_> {
    type Record = Run;
    type Error = ExactError;

    async fn record(&self, claim: &Claim, cohort: &Cohort) -> Result<Run, ExactError> {
        let Self { node, opened, bound, who, said } = self;
        let (request, key) = (&opened.request, opened.request.key);
        if (claim.permit, claim.query_key, claim.run) != (key.permit, key.query_key, key.run) {
            return Err(ExactError::Failed("the reviewed run is another one"));
        }
        let record = ReservationRecord {
            node: node.trust.name.clone(),
            study_id: request.study_id.clone(),
            query: request.query,
            query_key: key.query_key,
            run: key.run,
            micro_rho: Cost::ZERO.micro_rho,
            atto_delta: Cost::ZERO.atto_delta,
            at: said.at,
        };
        let reservation = Envelope::sign(&record, &[&node.signing]).map_err(Refusal::from)?.to_json();
        let charge = ChargeRequest {
            key,
            study_id: request.study_id.clone(),
            permit_total: Cost::total_of(&opened.permit.dp),
            query: request.query,
            nonce: opened.query.nonce.clone(),
            nonce_expires: opened.query.expires,
            cost: Cost::ZERO,
            register_seq: bound.register_seq,
            as_of: bound.as_of,
            snapshot: bound.snapshot.id().into(),
            asked: Asked {
                signed: true,
                query: request.envelope.clone(),
                permit: opened.permit_said.clone(),
                own_rule: bound.own_rule,
            },
            at: said.at,
        };
        let new = NewRelease {
            request: request.request,
            charge: &charge,
            candidate: node.candidate(opened, bound, cohort),
            who,
            said: *said,
            reservation: &reservation,
            refusal: &refusal_entry(request, &node.trust.name, &node.signing, said.at)?,
        };
        match node.ledger.record_exact(&new).await? {
            Recorded::New(run) | Recorded::Existing(run) => Ok(run),
            Recorded::TooClose(close) => Err(ExactError::TooClose(close)),
            Recorded::Refused(decision) => Err(LedgerError::Decided { decision: Box::new(decision) }.into()),
        }
    }
}

/// Refuses a request for ever, in the name of the hospital `name` with its key.
///
/// # Errors
/// When there is none of this number, it was decided before, or the database fails.
pub async fn refuse(
    ledger: &Ledger,
    (name, key): (&str, &SecretKey),
    number: i64,
    who: &str,
    said: Said<'_>,
) -> Result<(), ExactError> {
    let request = ledger.exact_request(number).await?.ok_or(LedgerError::UnknownRequest(number))?;
    let entry = refusal_entry(&request, name, key, said.at)?;
    Ok(ledger.refuse_exact(number, &request.key, who, &said, &entry).await?)
}

/// The entry of the log for a refusal: the same whoever says no.
fn refusal_entry(request: &ExactRequest, name: &str, key: &SecretKey, at: DateTime<Utc>) -> Result<Vec<u8>, Refusal> {
    let record = RefusalRecord {
        node: name.into(),
        permit: request.key.permit,
        query: request.query,
        query_key: request.key.query_key,
        run: request.key.run,
        code: Code::ExactRefused,
        at,
    };
    Ok(Envelope::sign(&record, &[key])?.to_json())
}
