//! The node's Arrow Flight service, for the coordinator only, on libp2p streams.
//!
//! `DoGet` answers a routed query, `GetFlightInfo` is its dry run, `DoAction("put")` hands in a roster, status or permit,
//! `DoAction("catalogue")` with a number hands out the hospital's catalogue of that number, `DoAction("consistency")` with two
//! sizes the proof that the hospital's log only grew between them. Each answer carries a checkpoint of that log.
//! Everything else is unimplemented. What arrives is bounded by tonic before it is decoded.

use std::{collections::HashMap, sync::Arc};

use arrow::record_batch::RecordBatch;
use arrow_flight::{
    Action, ActionType, Criteria, Empty, FlightData, FlightDescriptor, FlightEndpoint, FlightInfo, HandshakeRequest,
    HandshakeResponse, PollInfo, PutResult, SchemaResult, Ticket,
    encode::FlightDataEncoderBuilder,
    flight_service_server::{FlightService, FlightServiceServer},
};
use futures::{StreamExt, TryStreamExt, stream::BoxStream};
use sekisho_protocol::{
    control::{ACTION_CATALOGUE, ACTION_CONSISTENCY, CHECKPOINT_KEY, LOG_SEEN_KEY, RECEIPT_PROOF_KEY},
    log::proof::{ConsistencyProof, InclusionProof},
    query::RoutedQuery,
    refusal::{Code, Refusal},
    transport::{PeerInfo, status_of},
};
use tonic::{Request, Response, Status, Streaming};

use crate::{
    answer::{Answer, Answering},
    log::refusal,
    permits::put,
};

/// The key of the receipt in the metadata of a release's arrow schema.
pub const RECEIPT_KEY: &str = "sekisho.receipt";
/// The largest document that is handed in.
const MAX_MESSAGE: usize = 8 << 20;

/// The service over `answering`.
pub fn server(answering: Arc<Answering>) -> FlightServiceServer<Service> {
    FlightServiceServer::new(Service(answering)).max_decoding_message_size(MAX_MESSAGE.max(RoutedQuery::MAX_BYTES))
}

/// The Flight service of a node.
pub struct Service(Arc<Answering>);

impl Service {
    /// Only the pinned coordinator is answered, whoever else might reach a stream.
    async fn only_coordinator<T>(&self, request: &Request<T>) -> Result<(), Status> {
        let peer = request.extensions().get::<PeerInfo>().map(|info| info.peer().to_string());
        if peer.as_deref() == Some(self.0.trust.coordinator_peer.as_str()) {
            return Ok(());
        }
        self.0.watch.stranger().await;
        Err(status_of(&Refusal::new(Code::NotOnRoster, "only the coordinator may ask this node")))
    }
}

impl Service {
    /// The release of a query, with what the coordinator may then know of this node's log.
    async fn answered(&self, request: Request<Ticket>) -> Result<RecordBatch, Refusal> {
        let seen = seen(&request)?;
        self.0.has_seen(seen).await?;
        let answer = self.0.answer(&request.into_inner().ticket).await?;
        let checkpoint = self.0.checkpoint(seen).await?;
        let proof = self.0.receipt_proof(&answer.receipt.to_json(), &checkpoint.checkpoint).await?;
        batch_of(&answer, &checkpoint, &proof)
    }

    /// The proof that the body asks for: two sizes of the log, in decimal digits.
    async fn consistency(&self, body: &[u8]) -> Result<Vec<u8>, Refusal> {
        let sizes = str::from_utf8(body).ok().and_then(|text| text.split_once(' '));
        let sizes = sizes.and_then(|(old, new)| Some((old.parse().ok()?, new.parse().ok()?)));
        let (old, new) = sizes.ok_or_else(|| Refusal::new(Code::Malformed, "the body is no two sizes of the log"))?;
        let hashes = self.0.ledger.log().consistency(old, new).await.map_err(|error| refusal(&error))?;
        Ok(hashes.iter().flat_map(|hash| *hash.as_bytes()).collect())
    }

    /// The catalogue whose number the body says in decimal digits.
    async fn catalogue(&self, body: &[u8]) -> Result<Vec<u8>, Refusal> {
        let number = str::from_utf8(body).ok().and_then(|text| text.parse().ok());
        let seq = number.ok_or_else(|| Refusal::new(Code::Malformed, "the body is no number of a catalogue"))?;
        let failed = |_| Refusal::new(Code::Unavailable, "the hospital's catalogues cannot be read");
        let signed = self.0.shelf.signed(seq).await.map_err(failed)?;
        let signed = signed.ok_or_else(|| Refusal::new(Code::Malformed, "there is no catalogue of this number"))?;
        Ok(signed.envelope)
    }
}

/// How many entries of this node's log the asker says that it has seen.
fn seen<T>(request: &Request<T>) -> Result<u64, Refusal> {
    let Some(seen) = request.metadata().get(LOG_SEEN_KEY) else { return Ok(0) };
    let number = seen.to_str().ok().and_then(|text| text.parse().ok());
    number.ok_or_else(|| Refusal::new(Code::Malformed, format!("{LOG_SEEN_KEY} is no number of log entries")))
}

/// The release as one batch, with the receipt, the checkpoint and the receipt's proof beside the header in the schema's metadata.
fn batch_of(answer: &Answer, checkpoint: &ConsistencyProof, proof: &InclusionProof) -> Result<RecordBatch, Refusal> {
    let broken = |_| Refusal::new(Code::NoAnswer, "a release cannot be written");
    let batch = answer.release.to_batch().map_err(broken)?;
    let receipt = String::from_utf8(answer.receipt.to_json()).unwrap_or_default();
    let mut metadata: HashMap<String, String> = batch.schema().metadata().clone();
    metadata.insert(RECEIPT_KEY.into(), receipt);
    metadata.insert(CHECKPOINT_KEY.into(), checkpoint.to_string());
    metadata.insert(RECEIPT_PROOF_KEY.into(), proof.to_string());
    let schema = Arc::new(batch.schema().as_ref().clone().with_metadata(metadata));
    batch.with_schema(schema).map_err(|_| Refusal::new(Code::NoAnswer, "a release cannot be written"))
}

type Answers<T> = BoxStream<'static, Result<T, Status>>;

#[tonic::async_trait]
impl FlightService for Service {
    type HandshakeStream = Answers<HandshakeResponse>;
    type ListFlightsStream = Answers<FlightInfo>;
    type DoGetStream = Answers<FlightData>;
    type DoPutStream = Answers<PutResult>;
    type DoActionStream = Answers<arrow_flight::Result>;
    type ListActionsStream = Answers<ActionType>;
    type DoExchangeStream = Answers<FlightData>;

    async fn do_get(&self, request: Request<Ticket>) -> Result<Response<Self::DoGetStream>, Status> {
        self.only_coordinator(&request).await?;
        let batch = self.answered(request).await.map_err(|r| status_of(&r))?;
        let stream = FlightDataEncoderBuilder::new()
            .with_schema(batch.schema())
            .build(futures::stream::iter([Ok(batch)]))
            .map_err(|_| status_of(&Refusal::new(Code::NoAnswer, "a release cannot be sent")));
        Ok(Response::new(stream.boxed()))
    }

    async fn get_flight_info(&self, request: Request<FlightDescriptor>) -> Result<Response<FlightInfo>, Status> {
        self.only_coordinator(&request).await?;
        let ticket = Ticket { ticket: request.into_inner().cmd };
        let report = self.0.dry_run(&ticket.ticket).await.map_err(|r| status_of(&r))?;
        let json = serde_json::to_vec(&report).unwrap_or_default();
        let endpoint = FlightEndpoint::new().with_ticket(ticket);
        Ok(Response::new(FlightInfo::new().with_endpoint(endpoint).with_app_metadata(json)))
    }

    async fn do_action(&self, request: Request<Action>) -> Result<Response<Self::DoActionStream>, Status> {
        self.only_coordinator(&request).await?;
        let action = request.into_inner();
        let body = match action.r#type.as_str() {
            "put" => put(&self.0, &action.body).await.map(|answer| answer.map(|e| e.to_json()).unwrap_or_default()),
            ACTION_CATALOGUE => self.catalogue(&action.body).await,
            ACTION_CONSISTENCY => self.consistency(&action.body).await,
            _ => return Err(Status::unimplemented("this node takes the actions put, catalogue and consistency")),
        };
        let body = body.map_err(|r| status_of(&r))?;
        Ok(Response::new(futures::stream::iter([Ok(arrow_flight::Result { body: body.into() })]).boxed()))
    }

    async fn handshake(
        &self,
        _: Request<Streaming<HandshakeRequest>>,
    ) -> Result<Response<Self::HandshakeStream>, Status> {
        Err(Status::unimplemented("libp2p has shaken hands"))
    }

    async fn list_flights(&self, _: Request<Criteria>) -> Result<Response<Self::ListFlightsStream>, Status> {
        Err(Status::unimplemented("ask by signed query"))
    }

    async fn poll_flight_info(&self, _: Request<FlightDescriptor>) -> Result<Response<PollInfo>, Status> {
        Err(Status::unimplemented("ask by signed query"))
    }

    async fn get_schema(&self, _: Request<FlightDescriptor>) -> Result<Response<SchemaResult>, Status> {
        Err(Status::unimplemented("schemas are signed documents"))
    }

    async fn do_put(&self, _: Request<Streaming<FlightData>>) -> Result<Response<Self::DoPutStream>, Status> {
        Err(Status::unimplemented("a node takes no data"))
    }

    async fn do_exchange(&self, _: Request<Streaming<FlightData>>) -> Result<Response<Self::DoExchangeStream>, Status> {
        Err(Status::unimplemented("a node takes no data"))
    }

    async fn list_actions(&self, _: Request<Empty>) -> Result<Response<Self::ListActionsStream>, Status> {
        Err(Status::unimplemented("the actions are put, catalogue and consistency"))
    }
}
