//! The door: Arrow Flight for people, on loopback or behind TLS.
//!
//! `GetFlightInfo` with a signed query is a dry run, `DoGet` with it asks, `DoAction` hands documents in and reads them
//! and the network's state ([`crate::report`] has the forms). Documents may be read by whoever reaches the door; a
//! query is answered only when a person of its permit signed it. Everything else is unimplemented.

use std::{io, sync::Arc};

use arrow_flight::{
    Action, ActionType, Criteria, Empty, FlightData, FlightDescriptor, FlightEndpoint, FlightInfo, HandshakeRequest,
    HandshakeResponse, PollInfo, PutResult, Result as FlightResult, SchemaResult, Ticket,
    encode::FlightDataEncoderBuilder,
    flight_service_server::{FlightService, FlightServiceServer},
};
use futures::{StreamExt, TryStreamExt, stream, stream::BoxStream};
use sekisho_protocol::{
    access::{Access, Item},
    clock::Clock,
    dsse::Envelope,
    refusal::{Code, Refusal},
    transport::{server_builder, status_of},
};
use serde::{Serialize, de::DeserializeOwned};
use tokio::net::TcpListener;
use tonic::{
    Request, Response, Status, Streaming, async_trait,
    metadata::MetadataMap,
    transport::{Identity, ServerTlsConfig, server::TcpIncoming},
};

use crate::{
    bundle::{self, Asker},
    documents::Documents,
    held,
    network::Nodes,
    reading,
    report::{
        ACTION_BUDGET, ACTION_BUNDLE, ACTION_GET, ACTION_LIST, ACTION_NETWORK, ACTION_PUT, ACTION_READ,
        ACTION_REGISTER, ACTION_TRUST, BudgetReport, CONFIDENCE_KEY, Listed, PutReport, RegisterWant,
    },
    round::{DEFAULT_CONFIDENCE, Rounds},
    store::Store,
    use_register,
};

/// The largest message: the envelope of the largest document, a status, and its framing.
const MAX_MESSAGE_BYTES: usize = 6 << 20;
/// The largest body of [`ACTION_GET`].
const MAX_WANT_BYTES: usize = 4096;

/// The largest piece of a bundle.
const PIECE_BYTES: usize = 1 << 20;
/// The largest report that is sent: clients read messages of at most 64 MiB.
const MAX_REPORT_BYTES: usize = 60 << 20;

/// What is behind the door.
pub struct Door {
    /// Documents that are handed in and read.
    pub documents: Arc<Documents>,
    /// The nodes that new documents are sent to.
    pub nodes: Arc<Nodes>,
    /// Where queries go.
    pub rounds: Arc<Rounds>,
    /// Rounds that were, for reviewers and the use register.
    pub store: Store,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
}

impl Door {
    /// Serves people on `listener` until `stop` is done and the calls that are open have ended.
    ///
    /// # Errors
    /// When certificate or key are not usable, or the listener breaks.
    pub async fn serve(
        self,
        listener: TcpListener,
        tls: Option<Identity>,
        stop: impl Future<Output = ()> + Send,
    ) -> Result<(), tonic::transport::Error> {
        let mut server = server_builder();
        if let Some(identity) = tls {
            server = server.tls_config(ServerTlsConfig::new().identity(identity))?;
        }
        let service = FlightServiceServer::new(self).max_decoding_message_size(MAX_MESSAGE_BYTES);
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        server.add_service(service).serve_with_incoming_shutdown(incoming, stop).await
    }

    async fn put(&self, envelope: &[u8]) -> Result<PutReport, Refusal> {
        let accepted = self.documents.put(envelope, self.clock.now()).await?;
        let kind = accepted.kind.as_str();
        tracing::info!(kind, digest = accepted.digest.short(), "a document was handed in");
        let holders = self.nodes.announce(accepted).await;
        Ok(PutReport { kind: kind.into(), digest: accepted.digest, holders })
    }

    fn get(&self, body: &[u8]) -> Result<Vec<u8>, Refusal> {
        self.documents.get(&Self::wanted(body, "document")?)
    }

    async fn list(&self, body: &[u8]) -> Result<Vec<Listed>, Refusal> {
        self.documents.list(&Self::wanted(body, "kind of document")?).await
    }

    /// What a caller wants, from the body of an action.
    fn wanted<T: DeserializeOwned>(body: &[u8], what: &str) -> Result<T, Refusal> {
        if body.len() > MAX_WANT_BYTES {
            return Err(Refusal::new(Code::TooLarge, format!("at most {MAX_WANT_BYTES} bytes say what is wanted")));
        }
        serde_json::from_slice(body)
            .map_err(|_| Refusal::new(Code::Malformed, format!("the body does not say which {what} is wanted")))
    }

    async fn register(&self, body: &[u8]) -> Result<Vec<u8>, Refusal> {
        let want: RegisterWant = Self::wanted(body, "use")?;
        bytes(&use_register::export(&self.documents, &self.store, want.study.as_deref(), self.clock.now()).await?)
    }

    async fn budget(&self, body: &[u8]) -> Result<BudgetReport, Refusal> {
        let name: String = Self::wanted(body, "permit or study")?;
        self.documents.budget(&name).await
    }

    async fn read(&self, envelope: &[u8]) -> Result<Vec<u8>, Refusal> {
        let now = self.clock.now();
        let item = Envelope::from_json::<Access>(envelope)?.peek::<Access>()?.0.item;
        match item {
            Item::Application { .. } | Item::Applications | Item::Reviews { .. } => {
                self.documents.read_application(envelope, now).await
            }
            Item::Releases => {
                let asker = Asker::of(&self.documents, envelope, now)?;
                bytes(&bundle::list(&self.documents, &self.store, |permit| asker.may(permit)).await?)
            }
            Item::Release { .. } => {
                Err(Refusal::new(Code::Malformed, "a bundle is read with the action `bundle`, in pieces"))
            }
            Item::LogEntries { .. } | Item::LogStatement { .. } => {
                let (item, reader) = self.documents.log_reader(envelope, now)?;
                bytes(&reading::read(&self.store, reader, &item).await?)
            }
            Item::HeldResults => {
                let reader = self.documents.reader(envelope, now)?;
                bytes(&held::list(&self.documents, &self.store, &reader.member).await?)
            }
            Item::HeldResult { result } => {
                let reader = self.documents.reader(envelope, now)?;
                bytes(&held::show(&self.documents, &self.store, &reader.member, result).await?)
            }
        }
    }

    /// The bundle that a signed request names, as a zip archive.
    async fn bundle(&self, envelope: &[u8]) -> Result<Vec<u8>, Refusal> {
        let asker = Asker::of(&self.documents, envelope, self.clock.now())?;
        let Item::Release { result } = asker.item else {
            return Err(Refusal::new(Code::Malformed, "the request names no result"));
        };
        asker.may_have(&self.documents, &self.store, result).await?;
        let bundle = bundle::make(&self.documents, &self.store, result).await?;
        bundle.zip().map_err(|error| Refusal::new(Code::TooLarge, error.to_string()))
    }
}

/// The confidence that the caller chose.
fn confidence(metadata: &MetadataMap) -> Result<f64, Refusal> {
    let Some(text) = metadata.get(CONFIDENCE_KEY) else { return Ok(DEFAULT_CONFIDENCE) };
    let chosen = text.to_str().ok().and_then(|text| text.parse().ok());
    chosen.filter(|confidence| (0.5..1.0).contains(confidence)).ok_or_else(|| {
        Refusal::new(Code::Malformed, format!("{CONFIDENCE_KEY} is a number from 0.5 to below 1, such as 0.95"))
    })
}

fn bytes(report: &impl Serialize) -> Result<Vec<u8>, Refusal> {
    let written = serde_json::to_vec(report);
    let written = written.map_err(|_| Refusal::new(Code::Unavailable, "the report could not be written"))?;
    if written.len() > MAX_REPORT_BYTES {
        let detail = format!("the report has {} bytes; at most {MAX_REPORT_BYTES} are sent", written.len());
        return Err(Refusal::new(Code::TooLarge, detail));
    }
    Ok(written)
}

fn json(report: &impl Serialize) -> Result<Vec<u8>, Status> {
    bytes(report).map_err(|refusal| status_of(&refusal))
}

fn refused(refusal: Refusal) -> Status {
    tracing::info!(code = %refusal.code, "a request was refused");
    status_of(&refusal)
}

fn absent<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("the door answers GetFlightInfo, DoGet and DoAction"))
}

/// The bound on tickets and descriptors is that of a query's envelope, in [`crate::round`].
#[async_trait]
impl FlightService for Door {
    type HandshakeStream = BoxStream<'static, Result<HandshakeResponse, Status>>;
    type ListFlightsStream = BoxStream<'static, Result<FlightInfo, Status>>;
    type DoGetStream = BoxStream<'static, Result<FlightData, Status>>;
    type DoPutStream = BoxStream<'static, Result<PutResult, Status>>;
    type DoExchangeStream = BoxStream<'static, Result<FlightData, Status>>;
    type DoActionStream = BoxStream<'static, Result<FlightResult, Status>>;
    type ListActionsStream = BoxStream<'static, Result<ActionType, Status>>;

    async fn get_flight_info(&self, request: Request<FlightDescriptor>) -> Result<Response<FlightInfo>, Status> {
        let descriptor = request.into_inner();
        let report = self.rounds.dry_run(&descriptor.cmd).await.map_err(refused)?;
        let endpoint = FlightEndpoint::new().with_ticket(Ticket::new(descriptor.cmd.clone()));
        let info = FlightInfo::new().with_descriptor(descriptor).with_endpoint(endpoint);
        Ok(Response::new(info.with_app_metadata(json(&report)?)))
    }

    async fn do_get(&self, request: Request<Ticket>) -> Result<Response<Self::DoGetStream>, Status> {
        let confidence = confidence(request.metadata()).map_err(refused)?;
        let (_, batches) = self.rounds.ask(&request.into_inner().ticket, confidence).await.map_err(refused)?;
        let schema = batches.first().map(arrow::record_batch::RecordBatch::schema);
        let schema = schema.ok_or_else(|| refused(Refusal::new(Code::Unavailable, "no table was made")))?;
        let data = FlightDataEncoderBuilder::new().with_schema(schema).build(stream::iter(batches.into_iter().map(Ok)));
        Ok(Response::new(data.map_err(|_| Status::internal("a table could not be encoded")).boxed()))
    }

    async fn do_action(&self, request: Request<Action>) -> Result<Response<Self::DoActionStream>, Status> {
        let action = request.into_inner();
        if action.r#type == ACTION_BUNDLE {
            let archive = self.bundle(&action.body).await.map_err(refused)?;
            let pieces: Vec<_> =
                archive.chunks(PIECE_BYTES).map(|piece| Ok(FlightResult::new(piece.to_vec()))).collect();
            return Ok(Response::new(stream::iter(pieces).boxed()));
        }
        let body = match action.r#type.as_str() {
            ACTION_PUT => json(&self.put(&action.body).await.map_err(refused)?)?,
            ACTION_GET => self.get(&action.body).map_err(refused)?,
            ACTION_LIST => json(&self.list(&action.body).await.map_err(refused)?)?,
            ACTION_READ => self.read(&action.body).await.map_err(refused)?,
            ACTION_REGISTER => self.register(&action.body).await.map_err(refused)?,
            ACTION_NETWORK => json(&self.nodes.report())?,
            ACTION_TRUST => json(&self.documents.trust().map_err(refused)?)?,
            ACTION_BUDGET => json(&self.budget(&action.body).await.map_err(refused)?)?,
            _ => return absent(),
        };
        Ok(Response::new(stream::iter([Ok(FlightResult::new(body))]).boxed()))
    }

    async fn handshake(
        &self,
        _: Request<Streaming<HandshakeRequest>>,
    ) -> Result<Response<Self::HandshakeStream>, Status> {
        absent()
    }

    async fn list_flights(&self, _: Request<Criteria>) -> Result<Response<Self::ListFlightsStream>, Status> {
        absent()
    }

    async fn poll_flight_info(&self, _: Request<FlightDescriptor>) -> Result<Response<PollInfo>, Status> {
        absent()
    }

    async fn get_schema(&self, _: Request<FlightDescriptor>) -> Result<Response<SchemaResult>, Status> {
        absent()
    }

    async fn do_put(&self, _: Request<Streaming<FlightData>>) -> Result<Response<Self::DoPutStream>, Status> {
        absent()
    }

    async fn do_exchange(&self, _: Request<Streaming<FlightData>>) -> Result<Response<Self::DoExchangeStream>, Status> {
        absent()
    }

    async fn list_actions(&self, _: Request<Empty>) -> Result<Response<Self::ListActionsStream>, Status> {
        absent()
    }
}

/// Opens the door's socket.
///
/// # Errors
/// When the address is not ours or in use.
pub async fn bind(address: std::net::SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).await
}
