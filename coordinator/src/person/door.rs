//! The client of the coordinator's door: Arrow Flight, with JSON in its actions and metadata.
//!
//! Promises: whatever the coordinator sends is bounded before it is decoded; a failure says whether the
//! coordinator refused or could not be reached; a document that is fetched is of its kind.
//!
//! Deliberately absent: retries (the person decides, since a new run costs), and any trust: callers check
//! signatures and digests of what they fetch.

use std::{error::Error, path::Path, time::Duration};

use arrow::{datatypes::SchemaRef, record_batch::RecordBatch};
use arrow_flight::{
    Action, FlightDescriptor, Ticket, decode::FlightRecordBatchStream, error::FlightError,
    flight_service_client::FlightServiceClient,
};
use chrono::{DateTime, Utc};
use futures::{StreamExt, TryStreamExt};
use sekisho_protocol::{
    access::{self, Access, Item},
    digest::Digest,
    dsse::{Document, Envelope},
    keys::SecretKey,
    refusal::{Code, Refusal},
    transport::refusal_of,
};
use serde::{Serialize, de::DeserializeOwned};
use tonic::{
    Request, Status,
    metadata::MetadataValue,
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint},
};

use super::{failure::Failure, file, print::note};
use crate::report::{
    ACTION_BUDGET, ACTION_BUNDLE, ACTION_GET, ACTION_LIST, ACTION_NETWORK, ACTION_PUT, ACTION_READ, ACTION_REGISTER,
    ACTION_TRUST, BudgetReport, CONFIDENCE_KEY, DryRunReport, ListWant, Listed, NetworkReport, PutReport, RESULT_KEY,
    RegisterWant, ResultReport, TrustReport, Want,
};
use crate::{store::Kind, use_register::UseRegister};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an action may take; a permit goes to every hospital first.
const ACTION_TIMEOUT: Duration = Duration::from_secs(300);
/// How often a silent connection is probed, so that a coordinator that died is noticed.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
const WINDOW: u32 = 16 << 20;
/// The largest message: a result's schema carries the receipts of up to 1024 hospitals.
const MAX_MESSAGE: usize = 64 << 20;
/// The most memory that a result may take.
const MAX_RESULT: usize = 1 << 30;
/// Where a refusal's own code travels; a status without it is gRPC's.
const CODE_KEY: &str = "sekisho-code";

/// A connection to the coordinator's door.
pub struct Door {
    client: FlightServiceClient<Channel>,
    url: String,
}

/// The answer to a query.
#[derive(Debug)]
pub struct Answer {
    /// What it is.
    pub report: ResultReport,
    /// The columns.
    pub schema: SchemaRef,
    /// The rows, of all hospitals and of each.
    pub batches: Vec<RecordBatch>,
}

impl Door {
    /// Connects to `url`; for `https://`, `ca` is the PEM of the authority that signed its certificate.
    ///
    /// # Errors
    /// When the URL or the certificate is wrong, or nobody answers.
    pub async fn connect(url: &str, ca: Option<&Path>) -> Result<Self, Failure> {
        let wrong = |e: &tonic::transport::Error| {
            Failure::input(
                format!("--coordinator {url}: {}", chain(e)),
                "write it as http://host:port or https://host:port",
            )
        };
        let endpoint = Channel::from_shared(url.to_string()).map_err(|e| {
            Failure::input(format!("--coordinator {url}: {e}"), "write it as http://host:port or https://host:port")
        })?;
        let mut endpoint = endpoint
            .connect_timeout(CONNECT_TIMEOUT)
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .keep_alive_while_idle(true);
        if endpoint.uri().scheme_str() == Some("https") {
            let ca = ca.ok_or_else(|| {
                Failure::input(
                    "https:// needs the authority that signed the coordinator's certificate",
                    "add --ca FILE",
                )
            })?;
            let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(file::read(ca)?));
            endpoint = endpoint.tls_config(tls).map_err(|e| wrong(&e))?;
        } else if !is_loopback(&endpoint) {
            note(&format!("warning: {url} is not encrypted; use https:// beyond this machine"));
        }
        let channel = tokio::time::timeout(2 * CONNECT_TIMEOUT, endpoint.connect())
            .await
            .map_err(|_| Failure::unreachable(url, "the connection timed out"))?
            .map_err(|e| Failure::unreachable(url, &chain(&e)))?;
        let client = FlightServiceClient::new(channel)
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE);
        Ok(Self { client, url: url.into() })
    }

    /// Hands in a signed document.
    ///
    /// # Errors
    /// When the coordinator refuses it or cannot be reached.
    pub async fn put(&mut self, envelope: &Envelope) -> Result<PutReport, Failure> {
        let body = self.action(ACTION_PUT, envelope.to_json()).await?;
        json(ACTION_PUT, &body)
    }

    /// Fetches a document with its digest and the envelope that it came in. Nobody's signature is checked.
    ///
    /// # Errors
    /// When there is none, it is another kind, or the coordinator cannot be reached.
    pub async fn get<D: Document>(&mut self, want: &Want) -> Result<(Envelope, D, Digest), Failure> {
        let body = self.action(ACTION_GET, bytes(want)?).await?;
        let answer = |e: sekisho_protocol::dsse::DsseError| Failure::answer(ACTION_GET, e);
        let envelope = Envelope::from_json::<D>(&body).map_err(answer)?;
        let (document, digest) = envelope.peek::<D>().map_err(answer)?;
        Ok((envelope, document, digest))
    }

    /// Lists public documents of a kind with their history, the latest first. Nobody's signature is checked.
    ///
    /// # Errors
    /// When the coordinator cannot be reached.
    pub async fn list(&mut self, kind: Kind, name: Option<&str>) -> Result<Vec<Listed>, Failure> {
        let want = ListWant { kind, name: name.map(str::to_string) };
        let body = self.action(ACTION_LIST, bytes(&want)?).await?;
        json(ACTION_LIST, &body)
    }

    /// Reads what is not public, in the name of `key`'s owner.
    ///
    /// # Errors
    /// When that person may not read it, or the coordinator cannot be reached.
    pub async fn read<T: DeserializeOwned>(
        &mut self,
        item: Item,
        key: &SecretKey,
        now: DateTime<Utc>,
    ) -> Result<T, Failure> {
        let body = self.action(ACTION_READ, signed(item, key, now)?).await?;
        json(ACTION_READ, &body)
    }

    /// Fetches the bundle of a result as a zip archive, in the name of `key`'s owner.
    ///
    /// # Errors
    /// When that person may not have it, it is larger than a bundle may be, or the coordinator cannot be reached.
    pub async fn bundle(&mut self, result: Digest, key: &SecretKey, now: DateTime<Utc>) -> Result<Vec<u8>, Failure> {
        let body = signed(Item::Release { result }, key, now)?;
        let reply = self.client.do_action(request(Action::new(ACTION_BUNDLE, body))).await;
        let mut stream = reply.map_err(|status| self.failure(&status))?.into_inner();
        let mut archive = Vec::new();
        while let Some(piece) = stream.message().await.map_err(|status| self.failure(&status))? {
            archive.extend_from_slice(&piece.body);
            if archive.len() > MAX_RESULT {
                return Err(Refusal::new(Code::TooLarge, "the bundle takes more than 1 GiB").into());
            }
        }
        Ok(archive)
    }

    /// Fetches the public use register.
    ///
    /// # Errors
    /// When the coordinator cannot be reached.
    pub async fn register(&mut self, want: &RegisterWant) -> Result<UseRegister, Failure> {
        let body = self.action(ACTION_REGISTER, bytes(want)?).await?;
        json(ACTION_REGISTER, &body)
    }

    /// Asks after the state of the network.
    ///
    /// # Errors
    /// When the coordinator cannot be reached.
    pub async fn network(&mut self) -> Result<NetworkReport, Failure> {
        let body = self.action(ACTION_NETWORK, Vec::new()).await?;
        json(ACTION_NETWORK, &body)
    }

    /// Asks whose signatures count.
    ///
    /// # Errors
    /// When the coordinator cannot be reached.
    pub async fn trust(&mut self) -> Result<TrustReport, Failure> {
        let body = self.action(ACTION_TRUST, Vec::new()).await?;
        json(ACTION_TRUST, &body)
    }

    /// Asks what the study that `name` names has left.
    ///
    /// # Errors
    /// When no such study is known, or the coordinator cannot be reached.
    pub async fn budget(&mut self, name: &str) -> Result<BudgetReport, Failure> {
        let body = self.action(ACTION_BUDGET, bytes(&name)?).await?;
        json(ACTION_BUDGET, &body)
    }

    /// Asks what a signed query would cost and who would admit it.
    ///
    /// # Errors
    /// When the coordinator refuses or cannot be reached.
    pub async fn dry_run(&mut self, query: &Envelope) -> Result<DryRunReport, Failure> {
        let descriptor = FlightDescriptor::new_cmd(query.to_json());
        let reply = self.client.get_flight_info(request(descriptor)).await;
        let reply = reply.map_err(|status| self.failure(&status))?;
        json("dry run", &reply.into_inner().app_metadata)
    }

    /// Asks a signed query.
    ///
    /// # Errors
    /// When the coordinator refuses, its answer is not understood, or it cannot be reached.
    pub async fn ask(&mut self, query: &Envelope, confidence: f64) -> Result<Answer, Failure> {
        let mut request = Request::new(Ticket::new(query.to_json()));
        let value = MetadataValue::try_from(confidence.to_string())
            .map_err(|_| Failure::input("--confidence is no number", "write it as 0.95"))?;
        request.metadata_mut().insert(CONFIDENCE_KEY, value);
        let reply = self.client.do_get(request).await.map_err(|status| self.failure(&status))?;
        let mut stream = FlightRecordBatchStream::new_from_flight_data(reply.into_inner().map_err(FlightError::from));
        let (mut batches, mut size) = (Vec::new(), 0_usize);
        while let Some(batch) = stream.next().await {
            let batch = batch.map_err(|e| self.broken(e))?;
            size = size.saturating_add(batch.get_array_memory_size());
            if size > MAX_RESULT {
                return Err(Refusal::new(Code::TooLarge, "the result takes more than 1 GiB").into());
            }
            batches.push(batch);
        }
        let schema = stream.schema().cloned().ok_or_else(|| Failure::answer("result", "it has no schema"))?;
        let report = schema.metadata().get(RESULT_KEY).ok_or_else(|| Failure::answer("result", "it has no report"))?;
        let report = json("result", report.as_bytes())?;
        Ok(Answer { report, schema, batches })
    }

    async fn action(&mut self, kind: &str, body: Vec<u8>) -> Result<Vec<u8>, Failure> {
        let reply = self.client.do_action(request(Action::new(kind, body))).await;
        let mut stream = reply.map_err(|status| self.failure(&status))?.into_inner();
        let first = stream.message().await.map_err(|status| self.failure(&status))?;
        first.map(|r| r.body.into()).ok_or_else(|| Failure::answer(kind, "it is empty"))
    }

    fn failure(&self, status: &Status) -> Failure {
        let refusal = refusal_of(status);
        // Without a code of ours nobody promises that nothing was charged.
        let from_channel = status.metadata().get(CODE_KEY).is_none();
        if from_channel && matches!(refusal.code, Code::Offline | Code::Unavailable) {
            return Failure::unreachable(&self.url, &chain(status));
        }
        refusal.into()
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "all but the network's errors are of the content")]
    fn broken(&self, error: FlightError) -> Failure {
        match error {
            FlightError::Tonic(status) => self.failure(&status),
            other => Failure::answer("result", other),
        }
    }
}

/// A signed request to read `item`.
fn signed(item: Item, key: &SecretKey, now: DateTime<Utc>) -> Result<Vec<u8>, Failure> {
    let access = Access { item, issued: now, expires: now + access::MAX_LIFETIME };
    let envelope = Envelope::sign(&access, &[key]).map_err(|e| Failure::input(e.to_string(), "check the names"))?;
    Ok(envelope.to_json())
}

fn request<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(ACTION_TIMEOUT);
    request
}

fn bytes(value: &impl Serialize) -> Result<Vec<u8>, Failure> {
    serde_json::to_vec(value).map_err(|e| Failure::input(e.to_string(), "check the names that were given"))
}

fn json<T: DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T, Failure> {
    serde_json::from_slice(bytes).map_err(|e| Failure::answer(what, e))
}

fn is_loopback(endpoint: &Endpoint) -> bool {
    let host = endpoint.uri().host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// An error and its causes in one line, each thing once.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests;
