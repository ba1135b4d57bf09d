//! The door's client against a server that says what it is told to.

use std::{collections::HashMap, path::Path, sync::Arc};

use arrow::{
    array::StringArray,
    datatypes::{DataType, Field, Schema},
    record_batch::RecordBatch,
};
use arrow_flight::{
    ActionType, Criteria, Empty, FlightData, FlightInfo, HandshakeRequest, HandshakeResponse, PollInfo, PutResult,
    SchemaResult,
    encode::FlightDataEncoderBuilder,
    flight_service_server::{FlightService, FlightServiceServer},
};
use futures::{
    future,
    stream::{self, BoxStream},
};
use sekisho_protocol::{permit::Permit, transport::status_of};
use tonic::{Response, Streaming};

use super::{super::failure::Exit, *};

struct Fake;

type Reply<T> = Result<Response<T>, Status>;
type Many<T> = BoxStream<'static, Result<T, Status>>;

fn report() -> ResultReport {
    let zeros = "0".repeat(64);
    serde_json::from_value(serde_json::json!({
        "round": "r1", "permit": zeros, "query": zeros, "run": 1, "at": "2026-12-01T00:00:00Z", "complete": true,
        "confidence": 0.9, "preset": "none", "synthetic": false, "method": "weighted means",
        "privacy": {"micro_rho": 10, "delta": "1e-6", "epsilon": 0.1, "sites_per_patient": 1,
            "epsilon_all_sites": 0.1, "noise": []},
        "holders": [{"name": "tokyo", "state": "answered"}],
    }))
    .unwrap()
}

#[tonic::async_trait]
impl FlightService for Fake {
    type HandshakeStream = Many<HandshakeResponse>;
    type ListFlightsStream = Many<FlightInfo>;
    type DoGetStream = Many<FlightData>;
    type DoPutStream = Many<PutResult>;
    type DoActionStream = Many<arrow_flight::Result>;
    type ListActionsStream = Many<ActionType>;
    type DoExchangeStream = Many<FlightData>;

    async fn do_action(&self, request: Request<Action>) -> Reply<Self::DoActionStream> {
        let action = request.into_inner();
        let body = match action.r#type.as_str() {
            ACTION_PUT => return Err(status_of(&Refusal::new(Code::QuorumNotMet, "1 of 2 signatures"))),
            ACTION_NETWORK => r#"{"roster_seq":3,"status_seq":0,"status_expires":null,"members":[]}"#.to_string(),
            // A permit is asked for; something else comes.
            _ => r#"{"payloadType":"text/plain","payload":"","signatures":[]}"#.to_string(),
        };
        Ok(Response::new(stream::iter([Ok(arrow_flight::Result::new(body))]).boxed()))
    }

    async fn do_get(&self, request: Request<Ticket>) -> Reply<Self::DoGetStream> {
        let confidence = request.metadata().get(CONFIDENCE_KEY).and_then(|v| v.to_str().ok()).unwrap_or_default();
        assert_eq!(confidence, "0.9");
        let metadata = HashMap::from([(RESULT_KEY.to_string(), serde_json::to_string(&report()).unwrap())]);
        let fields = vec![Field::new("holder", DataType::Utf8, true)];
        let schema = Arc::new(Schema::new(fields).with_metadata(metadata));
        let ticket = request.into_inner().ticket;
        let batches = if ticket.len() > 300 {
            let names = Arc::new(StringArray::from(vec!["(all)", "tokyo"]));
            vec![Ok(RecordBatch::try_new(Arc::clone(&schema), vec![names]).unwrap())]
        } else {
            Vec::new()
        };
        let data = FlightDataEncoderBuilder::new().with_schema(schema).build(stream::iter(batches));
        Ok(Response::new(data.map_err(Status::from).boxed()))
    }

    async fn get_flight_info(&self, request: Request<FlightDescriptor>) -> Reply<FlightInfo> {
        let long = request.into_inner().cmd.len() > 300;
        Err(if long { Status::unknown("broke") } else { Status::unavailable("gone") })
    }

    async fn handshake(&self, _: Request<Streaming<HandshakeRequest>>) -> Reply<Self::HandshakeStream> {
        Err(Status::unimplemented(""))
    }
    async fn list_flights(&self, _: Request<Criteria>) -> Reply<Self::ListFlightsStream> {
        Err(Status::unimplemented(""))
    }
    async fn poll_flight_info(&self, _: Request<FlightDescriptor>) -> Reply<PollInfo> {
        Err(Status::unimplemented(""))
    }
    async fn get_schema(&self, _: Request<FlightDescriptor>) -> Reply<SchemaResult> {
        Err(Status::unimplemented(""))
    }
    async fn do_put(&self, _: Request<Streaming<FlightData>>) -> Reply<Self::DoPutStream> {
        Err(Status::unimplemented(""))
    }
    async fn list_actions(&self, _: Request<Empty>) -> Reply<Self::ListActionsStream> {
        Err(Status::unimplemented(""))
    }
    async fn do_exchange(&self, _: Request<Streaming<FlightData>>) -> Reply<Self::DoExchangeStream> {
        Err(Status::unimplemented(""))
    }
}

async fn door() -> Door {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let incoming = stream::unfold(listener, |listener| async {
        let accepted = listener.accept().await.map(|(stream, _)| stream);
        Some((accepted, listener))
    });
    let server = tonic::transport::Server::builder().add_service(FlightServiceServer::new(Fake));
    tokio::spawn(server.serve_with_incoming_shutdown(incoming.boxed(), future::pending()));
    Door::connect(&url, None).await.unwrap()
}

/// An envelope, of a size that says which answer the server shall give.
fn envelope(bytes: usize) -> Envelope {
    let json = serde_json::json!({"payloadType": "t", "payload": "a".repeat(bytes), "signatures": []});
    serde_json::from_value(json).unwrap()
}

#[tokio::test]
async fn a_refusal_keeps_its_code() {
    let failure = door().await.put(&envelope(1)).await.unwrap_err();
    assert_eq!((failure.exit(), failure.code()), (Exit::Refused, "quorum_not_met"));
}

#[tokio::test]
async fn a_silent_coordinator_is_unreachable_and_no_refusal() {
    for bytes in [1, 1000] {
        let failure = door().await.dry_run(&envelope(bytes)).await.unwrap_err();
        assert_eq!((failure.exit(), failure.code()), (Exit::Unreachable, "unreachable"));
    }
    let nobody = Door::connect("http://127.0.0.1:1", None).await.err().unwrap();
    assert_eq!(nobody.exit(), Exit::Unreachable);
}

#[tokio::test]
async fn a_result_has_its_report_with_rows_and_without() {
    let mut door = door().await;
    for (bytes, rows) in [(1000, 2), (1, 0)] {
        let answer = door.ask(&envelope(bytes), 0.9).await.unwrap();
        assert_eq!(answer.report.round, "r1");
        assert_eq!(answer.batches.iter().map(RecordBatch::num_rows).sum::<usize>(), rows);
    }
}

#[tokio::test]
async fn a_document_of_another_kind_is_not_taken() {
    let mut door = door().await;
    let failure = door.get::<Permit>(&Want::Permit { name: "p".into() }).await.unwrap_err();
    assert_eq!(failure.code(), "malformed");
    assert_eq!(door.network().await.unwrap().roster_seq, 3);
}

#[tokio::test]
async fn a_url_that_is_none_is_bad_input() {
    for (url, ca) in [("", None), ("https://localhost:1", None), ("https://localhost:1", Some(Path::new("/none")))] {
        assert_eq!(Door::connect(url, ca).await.err().unwrap().exit(), Exit::Input, "{url}");
    }
}
