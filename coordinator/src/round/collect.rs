//! One hospital's answer: read within bounds, and believed only with its signed receipt, a checkpoint of its log, and the proof
//! that the receipt is in there.

use std::{
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use arrow::{compute::concat_batches, ipc, record_batch::RecordBatch};
use arrow_flight::{FlightData, Ticket, decode::FlightRecordBatchStream, error::FlightError};
use futures::{FutureExt, Stream, StreamExt};
use sekisho_aggregation::{combine, plan::PrivatePlan, release::Release};
use sekisho_protocol::{
    control::{CHECKPOINT_KEY, LOG_SEEN_KEY, RECEIPT_PROOF_KEY},
    dsse::{Envelope, Verified},
    receipt::Receipt,
    refusal::{Code, Refusal},
    roster::Member,
};
use tonic::{Request, Status};

use super::{Answer, Rounds, authorise::PermittedQuery, receipt_proof::proven};
use crate::{
    network::{holder, holder_refused, keys_of, names_code, refusal_of_node},
    report::{HolderReport, HolderState},
};

/// The key of the receipt's envelope in the arrow schema's metadata of a release.
const RECEIPT_KEY: &str = "sekisho.receipt";
/// The largest gRPC message of a release.
const MAX_MESSAGE_BYTES: usize = 64 << 20;
/// What a stream may have beside its numbers: schema, receipt, framing, padding.
const OVERHEAD_BYTES: usize = 4 << 20;

/// Why there is no release of a hospital.
#[derive(Debug)]
pub enum NoRelease {
    /// It said so, or was not reached.
    Said(Refusal),
    /// What it sent cannot be believed; it may have charged.
    Unbelieved(Refusal),
}

impl NoRelease {
    /// The code in reports and logs.
    pub(super) fn code(&self) -> Code {
        match self {
            Self::Said(refusal) | Self::Unbelieved(refusal) => refusal.code,
        }
    }
}

impl From<Refusal> for NoRelease {
    fn from(refusal: Refusal) -> Self {
        Self::Said(refusal)
    }
}

pub(super) fn unbelieved(detail: impl Into<String>) -> NoRelease {
    NoRelease::Unbelieved(Refusal::new(Code::Malformed, detail))
}

/// The report of a hospital that answered.
pub(super) fn answered(answer: &Answer) -> HolderReport {
    HolderReport {
        as_of: Some(answer.receipt.as_of),
        synthetic: answer.receipt.synthetic,
        exact_since: answer.receipt.exact_since,
        receipt: Some(answer.envelope.clone()),
        ..holder(&answer.name, HolderState::Answered)
    }
}

/// The report of a hospital that did not.
pub(super) fn unanswered(name: &str, reason: NoRelease) -> HolderReport {
    match reason {
        NoRelease::Said(refusal) => holder_refused(name, refusal),
        NoRelease::Unbelieved(refusal) => {
            HolderReport { state: HolderState::NoAnswer, ..holder_refused(name, refusal) }
        }
    }
}

impl Rounds {
    /// Asks one hospital and checks its answer.
    pub(super) async fn ask_one(
        &self,
        query: &PermittedQuery,
        member: &Member,
        routed: Vec<u8>,
    ) -> Result<Answer, NoRelease> {
        let mut client = self.nodes.flight(member, MAX_MESSAGE_BYTES)?;
        let mut request = Request::new(Ticket::new(routed));
        request.metadata_mut().insert(LOG_SEEN_KEY, self.seen(member).await?.into());
        let stream = client.do_get(request).await.map_err(|status| of_status(&status))?;
        let batch = read(&query.plan, stream.into_inner()).await?;
        let mut answer = check(query, member, &batch)?;
        let schema = batch.schema();
        let checkpoint = self.witness(query, member, schema.metadata().get(CHECKPOINT_KEY)).await?;
        answer.proof = proven(schema.metadata().get(RECEIPT_PROOF_KEY), &answer.envelope, &checkpoint)?;
        Ok(answer)
    }
}

/// Reads one release: no more rows than the plan has numbers, one column, and not many more bytes than these take.
///
/// # Errors
/// When the messages are more, or no release; or what the hospital said instead.
pub async fn read(
    plan: &PrivatePlan,
    messages: impl Stream<Item = Result<FlightData, Status>> + Send + 'static,
) -> Result<RecordBatch, NoRelease> {
    let most = 2 * 16 * plan.most_numbers() + OVERHEAD_BYTES;
    let total = Arc::new(AtomicUsize::new(0));
    let bounded = messages.map(move |message| {
        let message = message.map_err(|status| FlightError::Tonic(Box::new(status)))?;
        let size = message.data_header.len() + message.data_body.len() + message.app_metadata.len();
        if total.fetch_add(size, Ordering::Relaxed).saturating_add(size) > most {
            return Err(FlightError::protocol("more bytes than the release can have"));
        }
        plain(&message).map(|()| message)
    });
    let mut batches = FlightRecordBatchStream::new_from_flight_data(bounded);
    let (mut parts, mut rows) = (Vec::new(), 0);
    loop {
        // The decoder panics on some bytes that no node of ours sends; nothing of it is used afterwards.
        let next = AssertUnwindSafe(batches.next()).catch_unwind().await;
        let Some(batch) = next.map_err(|_| unbelieved("its answer cannot be read"))? else { break };
        let batch = batch.map_err(|error| of_stream(&error))?;
        rows += batch.num_rows();
        if batch.num_rows() == 0 || rows > plan.most_numbers() || batch.num_columns() != 1 {
            return Err(unbelieved("the release has other rows or columns than the plan"));
        }
        parts.push(batch);
    }
    let first = parts.first().ok_or_else(|| unbelieved("the release is empty"))?;
    concat_batches(&first.schema(), &parts).map_err(|_| unbelieved("the parts of the release do not fit together"))
}

/// That a message is a schema or an uncompressed batch: dictionaries and compression can outgrow any bound.
fn plain(message: &FlightData) -> Result<(), FlightError> {
    let header = ipc::root_as_message(&message.data_header);
    let header = header.map_err(|_| FlightError::DecodeError("no arrow message".into()))?;
    if header.header_type() == ipc::MessageHeader::DictionaryBatch {
        return Err(FlightError::protocol("a release has no dictionaries"));
    }
    let Some(batch) = header.header_as_record_batch() else { return Ok(()) };
    if batch.compression().is_some() {
        return Err(FlightError::protocol("a release is not compressed"));
    }
    // The decoder would panic.
    let body = i64::try_from(message.data_body.len()).unwrap_or(i64::MAX);
    let within = |b: &ipc::Buffer| {
        b.offset() >= 0 && b.length() >= 0 && b.offset().checked_add(b.length()).is_some_and(|end| end <= body)
    };
    if !batch.buffers().is_none_or(|buffers| buffers.iter().all(within)) {
        return Err(FlightError::protocol("a release has no numbers beyond its bytes"));
    }
    Ok(())
}

fn of_status(status: &Status) -> NoRelease {
    let refusal = refusal_of_node(status);
    // Without a stable code these are our own decoder's words: too long, or not what was announced.
    if matches!(refusal.code, Code::TooLarge | Code::Malformed) && !names_code(status) {
        return unbelieved(refusal.detail);
    }
    refusal.into()
}

fn of_stream(error: &FlightError) -> NoRelease {
    match error {
        FlightError::Tonic(status) => of_status(status),
        FlightError::Arrow(_)
        | FlightError::NotYetImplemented(_)
        | FlightError::ProtocolError(_)
        | FlightError::DecodeError(_)
        | FlightError::ExternalError(_) => unbelieved("its answer is no release of this plan"),
    }
}

/// Believes a release when the receipt in it is its hospital's, and both are of this question and this plan.
fn check(query: &PermittedQuery, member: &Member, batch: &RecordBatch) -> Result<Answer, NoRelease> {
    let release = Release::from_batch(batch).map_err(|error| unbelieved(error.to_string()))?;
    combine::check(&query.plan, query.permit.digest(), query.key, query.query.run, &release)
        .map_err(|error| unbelieved(error.to_string()))?;
    let schema = batch.schema();
    let envelope = schema.metadata().get(RECEIPT_KEY).ok_or_else(|| unbelieved("the release has no receipt"))?;
    let unsigned = |_| unbelieved("the receipt is not signed by the hospital");
    let envelope = Envelope::from_json::<Receipt>(envelope.as_bytes()).map_err(unsigned)?;
    let receipt: Verified<Receipt> = envelope.verify(&keys_of(member, &query.current), 1).map_err(unsigned)?;
    let header = release.header();
    // The receipt's query is that of the first signed message: a stored release is served for later ones.
    let same = receipt.node == member.name
        && receipt.permit == query.permit.digest()
        && receipt.study_id == query.permit.study_id
        && receipt.query_key == query.key
        && receipt.run == query.query.run
        && receipt.plan == query.plan.digest()
        && receipt.micro_rho == query.plan.micro_rho()
        && receipt.as_of == header.as_of
        && receipt.synthetic == header.synthetic
        && receipt.release_kind == query.permit.release_of(&query.query.sql)
        && receipt.release == release.digest();
    if !same {
        return Err(unbelieved("the receipt is of another release"));
    }
    Ok(Answer { name: member.name.clone(), release, receipt, envelope, proof: Vec::new() })
}
