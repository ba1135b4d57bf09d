//! A coordinator over real sockets, with nodes that are only as good as a row of a test says.

mod exact;
mod logs;
mod output;

use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
};

use arrow::{
    array::{AsArray, UInt32Array},
    datatypes::{DataType, Field, Int64Type, Schema as ArrowSchema},
    record_batch::RecordBatch,
};
use arrow_flight::{
    Action, ActionType, Criteria, Empty, FlightClient, FlightData, FlightDescriptor, FlightInfo, HandshakeRequest,
    HandshakeResponse, PollInfo, PutResult, Result as FlightResult, SchemaResult, Ticket,
    encode::FlightDataEncoderBuilder,
    error::FlightError,
    flight_service_server::{FlightService, FlightServiceServer},
};
use chrono::Duration as Days;
use futures::{StreamExt, TryStreamExt, stream, stream::BoxStream};
use rand::SeedableRng;
use sekisho_aggregation::{plan::PrivatePlan, release::Release};
use sekisho_protocol::{
    committee::{Committee, CommitteeMember},
    control::{self, FromCoordinator, FromNode, Hello, Holdings},
    digest::Digest,
    dsse::{Document, Envelope},
    keys::SecretKey,
    log::{
        entry::Kind,
        proof::{ConsistencyProof, InclusionProof},
    },
    orders::Regulator,
    permit::{Permit, ReleaseKind},
    query::{Query, Route, RoutedQuery, Terms},
    receipt::{Acceptance, DecidedBy, DryRun, Receipt},
    refusal::{Code, Refusal},
    roster::Member,
    schema::Schema,
    transport::{self, Limits, Network, P2pIo, PeerId, peer_id_of_seed, refusal_of, server_builder, status_of},
    units::{AttoDelta, MicroRho},
};
use tonic::{Request, Response, Status, Streaming, async_trait};

use super::*;
use crate::{
    bundle::tests::memory_log::MemoryLog,
    config::{Door as DoorConfig, LogFormat, LogLevel, QueryLimits, Trust},
    documents::tests::{key, now, permit, release_of, roster, schema, status},
    report::{DryRunReport, HolderState, NetworkReport, PutReport, RESULT_KEY, ResultReport, Want},
};

const SQL: &str = "SELECT sex, count(*) AS n FROM person GROUP BY sex ORDER BY n DESC LIMIT 2";
const SOON: Duration = Duration::from_secs(20);

/// How a node behaves when it is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Answers,
    /// It answers with a receipt that another key signed.
    Forges,
    /// Its receipt is of another release.
    OtherRelease,
    /// It sends more rows than the plan has cells.
    Floods,
    /// It sends a batch that is no release.
    Garbage,
    /// It ends the stream at once.
    Empty,
    /// It shows no checkpoint of its log.
    HidesItsLog,
    /// It shows a checkpoint of another log.
    ShowsAnothersLog,
    /// Each time it shows another history of its log.
    ForksItsLog,
    /// Its log gets shorter.
    CutsItsLog,
    /// It does not prove that its receipt is in its log.
    HidesItsReceipt,
    /// Its log has another receipt.
    LogsAnotherReceipt,
    Refuses,
    /// A person there looks at exact results: the first time it waits.
    WaitsOnce,
    /// It calls what is exact noised.
    CallsItNoised,
    /// It has released exact results before.
    SaysSince,
    ChargesAndFails,
    Hangs,
}

/// How many documents a node was sent, by payload type.
type Got = Arc<Mutex<BTreeMap<String, usize>>>;

/// A node without any data.
#[derive(Clone)]
struct FakeNode {
    name: String,
    mode: Mode,
    signing: Arc<SecretKey>,
    got: Got,
    permit: Permit,
    schema: Schema,
    /// How often it answered.
    answers: Arc<AtomicU64>,
    log: Arc<Mutex<MemoryLog>>,
}

impl FakeNode {
    fn release(&self, query: &Query) -> (PrivatePlan, Release) {
        let plan = PrivatePlan::analyse(&query.sql, &self.schema, &self.permit, query.micro_rho).unwrap();
        let cells = (0..plan.cells() as i128).map(|cell| 100 * (cell + 1));
        let release = release_of(&plan, query, "00".repeat(32), cells);
        (plan, release)
    }

    fn batches(&self, query: &Query, digest: Digest) -> Vec<RecordBatch> {
        let (plan, release) = self.release(query);
        let other = self.mode == Mode::OtherRelease;
        let kind = self.permit.release_of(&query.sql);
        let receipt = Receipt {
            node: self.name.clone(),
            permit: query.permit,
            study_id: self.permit.study_id.clone(),
            query: digest,
            query_key: query.key(),
            run: query.run,
            plan: plan.digest(),
            micro_rho: query.micro_rho,
            atto_delta: AttoDelta::ZERO,
            synthetic: true,
            snapshot_commitment: Digest::of(b"snapshot"),
            register_commitment: Digest::of(b"register"),
            as_of: now().date_naive(),
            release: if other { Digest::of(b"another") } else { release.digest() },
            software: "fake".into(),
            at: now(),
            release_kind: if self.mode == Mode::CallsItNoised { ReleaseKind::Noised } else { kind },
            exact_since: (self.mode == Mode::SaysSince || kind == ReleaseKind::Aggregated).then(|| now().date_naive()),
        };
        let forger = key();
        let signer = if self.mode == Mode::Forges { &forger } else { &*self.signing };
        let receipt = Envelope::sign(&receipt, &[signer]).unwrap().to_json();
        let batch = release.to_batch().unwrap();
        let mut metadata = batch.schema().metadata().clone();
        let (checkpoint, proof) = self.shown(&receipt);
        metadata.insert("sekisho.receipt".into(), String::from_utf8(receipt).unwrap());
        if self.mode != Mode::HidesItsLog {
            metadata.insert(control::CHECKPOINT_KEY.into(), checkpoint.to_string());
        }
        if self.mode != Mode::HidesItsReceipt {
            metadata.insert(control::RECEIPT_PROOF_KEY.into(), proof.to_string());
        }
        let fields = batch.schema().fields().clone();
        let schema = Arc::new(ArrowSchema::new_with_metadata(fields, metadata));
        let batch = RecordBatch::try_new(schema, batch.columns().to_vec()).unwrap();
        match self.mode {
            // In two parts: long releases do not fit one message.
            Mode::Answers | Mode::ForksItsLog | Mode::CutsItsLog => {
                vec![batch.slice(0, 1), batch.slice(1, batch.num_rows() - 1)]
            }
            Mode::Floods => vec![batch; 1000],
            Mode::Garbage => {
                let field = Field::new("person_id", DataType::UInt32, false);
                let column = Arc::new(UInt32Array::from(vec![1, 2]));
                vec![RecordBatch::try_new(Arc::new(ArrowSchema::new(vec![field])), vec![column]).unwrap()]
            }
            Mode::Empty => Vec::new(),
            Mode::Forges | Mode::OtherRelease | Mode::HidesItsLog | Mode::ShowsAnothersLog => vec![batch],
            Mode::HidesItsReceipt | Mode::LogsAnotherReceipt => vec![batch],
            Mode::WaitsOnce | Mode::CallsItNoised | Mode::SaysSince => vec![batch],
            Mode::Refuses | Mode::ChargesAndFails | Mode::Hangs => vec![batch],
        }
    }

    /// What it shows of its log: eight entries, then its receipts, the same one once.
    fn shown(&self, receipt: &[u8]) -> (ConsistencyProof, InclusionProof) {
        let answers = self.answers.fetch_add(1, Ordering::Relaxed);
        let mut kept = self.log.lock().unwrap();
        let mut other = MemoryLog::default();
        let forks = matches!(self.mode, Mode::ForksItsLog | Mode::CutsItsLog);
        let log = if forks { &mut other } else { &mut *kept };
        let before = if self.mode == Mode::CutsItsLog { 8 - answers } else { 8 };
        let history = if self.mode == Mode::ForksItsLog { answers } else { 0 };
        for i in 0..before {
            log.enter(Kind::Reservation, format!("{history} {i}").as_bytes());
        }
        let entered = if self.mode == Mode::LogsAnotherReceipt { b"another receipt" } else { receipt };
        log.enter(Kind::Receipt, entered);
        let origin = format!("sekisho-test/{}", if self.mode == Mode::ShowsAnothersLog { "other" } else { &self.name });
        let checkpoint = log.signed(&origin.parse().unwrap(), &self.signing);
        let proof = log.proof(Kind::Receipt, entered, checkpoint.clone());
        (ConsistencyProof { old: 0, hashes: Vec::new(), checkpoint }, proof)
    }

    /// The proof that the log of the second size continues the one of the first.
    fn continues(&self, sizes: &[u8]) -> Vec<u8> {
        if self.mode != Mode::Answers {
            return Vec::new();
        }
        let (old, new) = str::from_utf8(sizes).unwrap().split_once(' ').unwrap();
        let hashes = self.log.lock().unwrap().consistency(old.parse().unwrap(), new.parse().unwrap());
        hashes.iter().flat_map(|hash| *hash.as_bytes()).collect()
    }

    fn opened(&self, routed: &[u8]) -> (Query, Digest) {
        let routed: RoutedQuery = serde_json::from_slice(routed).unwrap();
        let (route, _) = routed.route.peek::<Route>().unwrap();
        assert_eq!(route.to, self.name);
        routed.query.peek::<Query>().unwrap()
    }
}

type Answers<T> = BoxStream<'static, Result<T, Status>>;

#[async_trait]
impl FlightService for FakeNode {
    type HandshakeStream = Answers<HandshakeResponse>;
    type ListFlightsStream = Answers<FlightInfo>;
    type DoGetStream = Answers<FlightData>;
    type DoPutStream = Answers<PutResult>;
    type DoExchangeStream = Answers<FlightData>;
    type DoActionStream = Answers<FlightResult>;
    type ListActionsStream = Answers<ActionType>;

    async fn get_flight_info(&self, request: Request<FlightDescriptor>) -> Result<Response<FlightInfo>, Status> {
        let (query, _) = self.opened(&request.into_inner().cmd);
        let dry = DryRun { micro_rho: query.micro_rho, stored: false, study_left: query.micro_rho };
        Ok(Response::new(FlightInfo::new().with_app_metadata(serde_json::to_vec(&dry).unwrap())))
    }

    async fn do_get(&self, request: Request<Ticket>) -> Result<Response<Self::DoGetStream>, Status> {
        let (query, digest) = self.opened(&request.into_inner().ticket);
        match self.mode {
            Mode::Refuses => return Err(status_of(&Refusal::new(Code::BudgetStudy, "spent\u{1b}[31m"))),
            Mode::ChargesAndFails => return Err(status_of(&Refusal::new(Code::NoAnswer, "no answer"))),
            Mode::Hangs => std::future::pending().await,
            Mode::Answers | Mode::Forges | Mode::OtherRelease | Mode::Floods | Mode::Garbage | Mode::Empty => {}
            Mode::HidesItsLog | Mode::ShowsAnothersLog | Mode::ForksItsLog | Mode::CutsItsLog => {}
            Mode::HidesItsReceipt | Mode::LogsAnotherReceipt | Mode::CallsItNoised | Mode::SaysSince => {}
            Mode::WaitsOnce => {
                if self.answers.fetch_add(1, Ordering::Relaxed) == 0 {
                    return Err(status_of(&Refusal::new(Code::ExactWaiting, "a person looks at it")));
                }
            }
        }
        let batches = self.batches(&query, digest).into_iter().map(Ok);
        let data = FlightDataEncoderBuilder::new().build(stream::iter(batches));
        Ok(Response::new(data.map_err(|e| Status::internal(e.to_string())).boxed()))
    }

    async fn do_action(&self, request: Request<Action>) -> Result<Response<Self::DoActionStream>, Status> {
        let action = request.into_inner();
        if action.r#type == control::ACTION_CONSISTENCY {
            return Ok(Response::new(stream::iter([Ok(FlightResult::new(self.continues(&action.body)))]).boxed()));
        }
        let body = action.body;
        let envelope: Envelope = serde_json::from_slice(&body).unwrap();
        *self.got.lock().unwrap().entry(envelope.payload_type().to_string()).or_default() += 1;
        if envelope.payload_type() != Permit::PAYLOAD_TYPE {
            return Ok(Response::new(stream::empty().boxed()));
        }
        let (_, permit) = envelope.peek::<Permit>().unwrap();
        let refused = (self.mode == Mode::Refuses).then_some(Code::Policy);
        let answer = Acceptance {
            node: self.name.clone(),
            permit,
            refused,
            earmark: MicroRho::ZERO,
            at: now(),
            reason: None,
            decided_by: DecidedBy::Policy,
        };
        let answer = Envelope::sign(&answer, &[&self.signing]).unwrap();
        Ok(Response::new(stream::iter([Ok(FlightResult::new(answer.to_json()))]).boxed()))
    }

    async fn handshake(
        &self,
        _: Request<Streaming<HandshakeRequest>>,
    ) -> Result<Response<Answers<HandshakeResponse>>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn list_flights(&self, _: Request<Criteria>) -> Result<Response<Answers<FlightInfo>>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn poll_flight_info(&self, _: Request<FlightDescriptor>) -> Result<Response<PollInfo>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn get_schema(&self, _: Request<FlightDescriptor>) -> Result<Response<SchemaResult>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn do_put(&self, _: Request<Streaming<FlightData>>) -> Result<Response<Answers<PutResult>>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn do_exchange(&self, _: Request<Streaming<FlightData>>) -> Result<Response<Answers<FlightData>>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn list_actions(&self, _: Request<Empty>) -> Result<Response<Answers<ActionType>>, Status> {
        Err(Status::unimplemented(""))
    }
}

/// A coordinator, the keys of its world, and its hospitals.
struct World {
    dir: tempfile::TempDir,
    governance: SecretKey,
    committee: SecretKey,
    /// Further members of the committee.
    reviewers: Vec<SecretKey>,
    person: SecretKey,
    keys: BTreeMap<String, (SecretKey, Arc<SecretKey>)>,
    modes: BTreeMap<String, Mode>,
    networks: Vec<(Network, Got)>,
    daemon: Daemon,
    permit: Permit,
}

impl World {
    /// Hospitals `h0`, `h1`, … with these modes, on the roster and in the permit, none connected yet.
    async fn new(modes: &[Mode]) -> Self {
        let (dir, governance, committee, person) = (tempfile::tempdir().unwrap(), key(), key(), key());
        for name in ["transport", "signing"] {
            key_file::write(&dir.path().join(name), &key()).unwrap();
        }
        let modes: BTreeMap<String, Mode> = (0..).map(|i| format!("h{i}")).zip(modes.iter().copied()).collect();
        let keys = modes.keys().map(|name| (name.clone(), (key(), Arc::new(key())))).collect();
        let reviewers = vec![key(), key(), key(), key()];
        let daemon = start(&dir, &governance, &committee, &reviewers).await.unwrap();
        let mut granted = permit(&person, 1, Digest::of(b"unknown yet"));
        granted.data[0].holder_nodes = modes.keys().cloned().collect();
        Self {
            dir,
            governance,
            committee,
            reviewers,
            person,
            keys,
            modes,
            networks: Vec::new(),
            daemon,
            permit: granted,
        }
    }

    /// The same with roster, status, schema and permit handed in.
    async fn with_documents(modes: &[Mode]) -> Self {
        Self::with_permit(modes, |_, _| {}).await
    }

    /// The same with a permit that was changed before it was signed.
    async fn with_permit(modes: &[Mode], change: impl FnOnce(&mut Permit, &[SecretKey])) -> Self {
        let mut w = Self::new(modes).await;
        w.put(&w.roster(1, None)).await.unwrap();
        w.put(&Envelope::sign(&status(1, None, Vec::new()), &[&w.governance]).unwrap()).await.unwrap();
        w.permit.schema = w.put(&Envelope::sign(&schema(), &[&w.governance]).unwrap()).await.unwrap().digest;
        change(&mut w.permit, &w.reviewers);
        w.put(&w.signed_permit()).await.unwrap();
        w
    }

    fn roster(&self, seq: u64, prev: Option<Digest>) -> Envelope {
        let mut roster = roster(seq, prev);
        let member = |(name, (transport, signing)): (&String, &(SecretKey, Arc<SecretKey>))| Member {
            name: name.clone(),
            role: Role::Node,
            peer_id: peer_id_of_seed(&transport.seed()).unwrap().to_string(),
            signing_key: signing.public(),
        };
        roster.members = self.keys.iter().map(member).collect();
        Envelope::sign(&roster, &[&self.governance]).unwrap()
    }

    fn signed_permit(&self) -> Envelope {
        Envelope::sign(&self.permit, &[&self.committee]).unwrap()
    }

    async fn client(&self) -> FlightClient {
        let channel = tonic::transport::Endpoint::new(self.daemon.door_url()).unwrap().connect().await.unwrap();
        FlightClient::new(channel)
    }

    async fn action(&self, name: &str, body: Vec<u8>) -> Result<Vec<u8>, Refusal> {
        let mut answers = self.client().await.do_action(Action::new(name, body)).await.map_err(refusal)?;
        Ok(answers.next().await.unwrap().map_err(refusal)?.to_vec())
    }

    async fn put(&self, envelope: &Envelope) -> Result<PutReport, Refusal> {
        self.action("put", envelope.to_json()).await.map(|body| serde_json::from_slice(&body).unwrap())
    }

    async fn network(&self) -> NetworkReport {
        serde_json::from_slice(&self.action("network", Vec::new()).await.unwrap()).unwrap()
    }

    /// Connects a hospital; returns once it said what it holds.
    async fn connect(&mut self, name: &str) {
        let (transport, signing) = &self.keys[name];
        let peer = self.daemon.nodes.local_peer();
        let role = transport::Role::Dial { peer, addr: self.daemon.listen_addrs()[0].clone() };
        let (network, incoming) = Network::start(transport.seed(), role, Limits::default()).await.unwrap();
        let node = FakeNode {
            name: name.into(),
            mode: self.modes[name],
            signing: signing.clone(),
            got: Arc::default(),
            permit: self.permit.clone(),
            schema: schema(),
            answers: Arc::default(),
            log: Arc::default(),
        };
        let got = node.got.clone();
        tokio::spawn(server_builder().add_service(FlightServiceServer::new(node)).serve_with_incoming(incoming.flight));
        until_connected(&network, peer).await;
        let mut io = network.open_control(peer).await.unwrap();
        let hello = Hello { version: control::VERSION, name: name.into(), software: "fake".into() };
        say(&mut io, &FromNode::Hello(hello)).await;
        assert!(matches!(hear(&mut io).await, FromCoordinator::Welcome { .. }));
        say(&mut io, &FromNode::Holdings(Holdings { id: 7, ..Holdings::default() })).await;
        assert!(matches!(hear(&mut io).await, FromCoordinator::Ack { id: 7, .. }));
        tokio::spawn(async move {
            let _open = io;
            std::future::pending::<()>().await;
        });
        self.networks.push((network, got));
    }

    fn query(&self, sql: &str) -> Envelope {
        let query = Query {
            permit: Digest::of(&serde_json::to_vec(&self.permit).unwrap()),
            sql: sql.into(),
            holders: self.modes.keys().cloned().collect(),
            micro_rho: MicroRho::try_from(if self.permit.release_of(sql).is_noised() { 1000 } else { 0 }).unwrap(),
            run: 1,
            expires: now() + Days::hours(1),
            nonce: "0".repeat(32),
            terms: Terms::default(),
        };
        Envelope::sign(&query, &[&self.person]).unwrap()
    }

    async fn ask(&self, query: &Envelope) -> Result<(ResultReport, Vec<RecordBatch>), Refusal> {
        let mut stream = self.client().await.do_get(Ticket::new(query.to_json())).await.map_err(refusal)?;
        let mut batches = Vec::new();
        while let Some(batch) = stream.next().await {
            batches.push(batch.map_err(refusal)?);
        }
        let report = stream.schema().unwrap().metadata()[RESULT_KEY].clone();
        Ok((serde_json::from_str(&report).unwrap(), batches))
    }
}

/// A clock that goes on by a millisecond whenever it is read.
struct Ticking(AtomicI64);

impl Clock for Ticking {
    fn now(&self) -> DateTime<Utc> {
        now() + Days::milliseconds(self.0.fetch_add(1, Ordering::Relaxed))
    }
}

/// A regulator's key.
fn ministry() -> SecretKey {
    SecretKey::generate(&mut rand::rngs::StdRng::from_seed([7; 32]))
}

async fn start(
    dir: &tempfile::TempDir,
    governance: &SecretKey,
    committee: &SecretKey,
    reviewers: &[SecretKey],
) -> Result<Daemon, DaemonError> {
    let member = |(n, key): (usize, &SecretKey)| CommitteeMember {
        name: format!("m-{n}"),
        role: if n == 0 { "ethics" } else { "statistics" }.into(),
        key: key.public(),
    };
    let members = std::iter::once(committee).chain(reviewers).enumerate().map(member).collect();
    let config = Config {
        state_dir: dir.path().join("state"),
        transport_key: dir.path().join("transport"),
        signing_key: dir.path().join("signing"),
        listen: vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()],
        door: DoorConfig { address: "127.0.0.1:0".parse().unwrap(), tls: None },
        trust: Trust {
            governance: governance.public(),
            committee: Committee::pinned(1, Vec::new(), false, members).unwrap(),
            regulators: vec![Regulator { name: "ministry".into(), key: ministry().public() }],
            application_required: false,
        },
        limits: QueryLimits { deadline: Duration::from_secs(3), concurrent: 2 },
        log_format: LogFormat::Text,
        watch: None,
        log_level: LogLevel::Info,
        tiles: None,
        witness_policy: None,
        pages: None,
    };
    Daemon::start(config, Arc::new(Ticking(AtomicI64::new(0))), Hooks::default()).await
}

fn refusal(error: FlightError) -> Refusal {
    let FlightError::Tonic(status) = error else { panic!("{error}") };
    refusal_of(&status)
}

async fn until_connected(network: &Network, peer: PeerId) {
    let mut connected = network.connected();
    timeout(SOON, connected.wait_for(|peers| peers.contains(&peer))).await.unwrap().unwrap();
}

async fn say(io: &mut P2pIo, message: &FromNode) {
    transport::write_frame(io, &control::encode(message).unwrap(), SOON).await.unwrap();
}

async fn hear(io: &mut P2pIo) -> FromCoordinator {
    control::decode(&transport::read_frame(io, SOON).await.unwrap()).unwrap()
}

#[tokio::test]
async fn documents_go_in_at_the_door_and_come_out_and_survive_a_restart() {
    let w = World::with_documents(&[Mode::Answers]).await;
    let put = w.put(&w.signed_permit()).await.unwrap();
    assert_eq!((put.kind.as_str(), put.holders[0].state), ("permit", HolderState::Offline));
    let want = |want: &Want| serde_json::to_vec(want).unwrap();
    let (by_id, unknown) = (Want::Permit { name: "permit-1".into() }, Want::Permit { name: "permit-2".into() });
    assert_eq!(w.action("get", want(&by_id)).await.unwrap(), w.signed_permit().to_json());
    assert_eq!(w.action("get", want(&Want::Roster)).await.unwrap(), w.roster(1, None).to_json());
    assert_eq!(w.action("get", want(&unknown)).await.unwrap_err().code, Code::PermitUnknown);
    assert_eq!(w.action("get", b"{}".to_vec()).await.unwrap_err().code, Code::Malformed);
    assert_eq!(w.put(&w.query(SQL)).await.unwrap_err().code, Code::Malformed);
    assert!(matches!(start(&w.dir, &w.governance, &w.committee, &w.reviewers).await, Err(DaemonError::InUse(_))));

    w.daemon.run_until(async {}).await.unwrap();
    let again = start(&w.dir, &w.governance, &w.committee, &w.reviewers).await.unwrap();
    let w = World { daemon: again, ..World::new(&[]).await };
    let network = w.network().await;
    assert_eq!((network.roster_seq, network.status_seq, network.members[0].connected), (1, 1, false));
    assert!(w.action("get", want(&by_id)).await.is_ok());
}

#[tokio::test]
async fn a_node_that_connects_is_sent_what_it_lacks_and_its_acceptance_is_kept() {
    let mut w = World::with_documents(&[Mode::Answers, Mode::Refuses]).await;
    w.connect("h0").await;
    let permit = Digest::of(&serde_json::to_vec(&w.permit).unwrap());
    let kept = async {
        while w.daemon.store.acceptances(permit).await.unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(SOON, kept).await.unwrap();
    let got = w.networks[0].1.lock().unwrap().clone();
    assert_eq!(got.len(), 3, "{got:?}");
    let network = w.network().await;
    assert_eq!((network.members[0].roster_seq, network.members[0].status_seq), (1, 1));

    w.connect("h1").await;
    let put = w.put(&w.signed_permit()).await.unwrap();
    let states: Vec<_> = put.holders.iter().map(|h| (h.state, h.code)).collect();
    assert_eq!(states, [(HolderState::Answered, None), (HolderState::Refused, Some(Code::Policy))]);
    let next = w.roster(2, Some(Digest::of(b"?")));
    assert_eq!(w.put(&next).await.unwrap_err().code, Code::OlderDocument);
}

#[tokio::test]
async fn a_hospital_whose_log_forks_or_shrinks_is_not_believed_and_both_histories_are_on_record() {
    let modes = [Mode::Answers, Mode::ForksItsLog, Mode::CutsItsLog, Mode::HidesItsLog, Mode::ShowsAnothersLog];
    let mut w = World::with_documents(&modes).await;
    for name in w.modes.keys().cloned().collect::<Vec<_>>() {
        w.connect(&name).await;
    }
    let forked = (HolderState::NoAnswer, Some(Code::LedgerForked));
    let hidden = (HolderState::NoAnswer, Some(Code::Malformed));
    let answered = (HolderState::Answered, None);
    for expected in [[answered, answered, answered, hidden, hidden], [answered, forked, forked, hidden, hidden]] {
        let (report, _) = w.ask(&w.query(SQL)).await.unwrap();
        let states: Vec<_> = report.holders.iter().map(|holder| (holder.state, holder.code)).collect();
        assert_eq!(states, expected, "{:?}", report.holders);
    }
    let entries = w.daemon.store.log_entries(0, 99).await.unwrap();
    let checkpoints = entries.iter().filter(|entry| entry.kind == Kind::Checkpoint).count();
    assert_eq!(checkpoints, 5, "one of the first, two of each other hospital");
    assert_eq!(w.daemon.store.newest_checkpoint("h2").await.unwrap().unwrap().claimed().head().size(), 9);
}

#[tokio::test]
async fn an_answer_whose_receipt_is_not_in_its_hospitals_log_is_not_believed() {
    let modes = [Mode::Answers, Mode::HidesItsReceipt, Mode::LogsAnotherReceipt];
    let mut w = World::with_documents(&modes).await;
    for name in w.modes.keys().cloned().collect::<Vec<_>>() {
        w.connect(&name).await;
    }
    let (report, _) = w.ask(&w.query(SQL)).await.unwrap();
    let states: Vec<_> = report.holders.iter().map(|holder| (holder.state, holder.code)).collect();
    let caught = (HolderState::NoAnswer, Some(Code::Malformed));
    assert_eq!(states, [(HolderState::Answered, None), caught, caught], "{:?}", report.holders);
    let receipt = report.holders[0].receipt.as_ref().unwrap().to_json();
    assert!(w.daemon.store.receipt_proof("h0", &receipt).await.unwrap().is_some(), "the proof is kept");
}

#[tokio::test]
async fn a_round_has_a_state_for_each_hospital_and_its_tables_are_of_those_that_answered() {
    use HolderState::{Answered, NoAnswer, Offline, Refused};
    let rows = [
        (Mode::Answers, Answered, None),
        (Mode::Answers, Answered, None),
        (Mode::Forges, NoAnswer, Some(Code::Malformed)),
        (Mode::OtherRelease, NoAnswer, Some(Code::Malformed)),
        (Mode::Floods, NoAnswer, Some(Code::Malformed)),
        (Mode::Garbage, NoAnswer, Some(Code::Malformed)),
        (Mode::Empty, NoAnswer, Some(Code::Malformed)),
        (Mode::Refuses, Refused, Some(Code::BudgetStudy)),
        (Mode::ChargesAndFails, NoAnswer, Some(Code::NoAnswer)),
        (Mode::Hangs, Offline, Some(Code::Offline)),
    ];
    let modes: Vec<_> = rows.iter().map(|row| row.0).collect();
    let mut w = World::with_documents(&modes).await;
    for name in w.modes.keys().cloned().collect::<Vec<_>>() {
        w.connect(&name).await;
    }
    let (report, batches) = w.ask(&w.query(SQL)).await.unwrap();
    for ((mode, state, code), holder) in rows.iter().zip(&report.holders) {
        assert_eq!((holder.state, holder.code), (*state, *code), "{mode:?}: {:?}", holder.detail);
        assert_eq!(holder.receipt.is_some(), *state == Answered, "{mode:?}");
        assert!(!holder.detail.as_ref().is_some_and(|detail| detail.contains('\u{1b}')));
    }
    assert!(!report.complete && report.synthetic && report.privacy.protection.guarantee().unwrap().epsilon > 0.0);

    // Three or four cells of 100, 200, … at each of two hospitals; the SQL keeps the two largest.
    let table: Vec<(String, i64, String)> = batches
        .iter()
        .flat_map(|batch| {
            let (holder, n) = (batch.column(0).as_string::<i32>(), batch.column_by_name("n").unwrap());
            let (n, note) = (n.as_primitive::<Int64Type>(), batch.column_by_name("cell_note").unwrap());
            let note = note.as_string::<i32>();
            (0..batch.num_rows())
                .map(|i| (holder.value(i).into(), n.value(i), note.value(i).into()))
                .collect::<Vec<_>>()
        })
        .collect();
    let numbers = |name: &str| table.iter().filter(|row| row.0 == name).map(|row| row.1).collect::<Vec<_>>();
    let own = numbers("h0");
    assert_eq!(own.len(), 2);
    assert_eq!(numbers("(all)"), own.iter().map(|n| 2 * n).collect::<Vec<_>>());
    assert_eq!(numbers("h1"), own);
    assert_eq!(table.len(), 6);
    assert!(table.iter().all(|row| row.2.contains("incomplete") == (row.0 == "(all)")), "{table:?}");
    assert!(batches[0].column_by_name("n_low").is_some());

    let state = w.daemon.store.round(&report.round).await.unwrap();
    assert!(matches!(state, Some(crate::store::RoundState::Done(_))));
    let again = w.ask(&w.query(SQL)).await.unwrap().0;
    assert_ne!(again.round, report.round);
}

#[tokio::test]
async fn without_any_answer_there_are_states_and_an_empty_table() {
    let w = World::with_documents(&[Mode::Answers]).await;
    let (report, batches) = w.ask(&w.query(SQL)).await.unwrap();
    assert_eq!(report.holders[0].state, HolderState::Offline);
    assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), 0);
}

#[tokio::test]
async fn a_dry_run_asks_every_hospital_for_its_price() {
    let mut w = World::with_documents(&[Mode::Hangs, Mode::Answers]).await;
    w.connect("h0").await;
    let descriptor = FlightDescriptor::new_cmd(w.query(SQL).to_json());
    let info = w.client().await.get_flight_info(descriptor).await.unwrap();
    let report: DryRunReport = serde_json::from_slice(&info.app_metadata).unwrap();
    assert_eq!(report.holders[0].study_left, Some(report.privacy.micro_rho));
    assert_eq!(report.holders[1].state, HolderState::Offline);
    assert_eq!(info.endpoint[0].ticket.as_ref().unwrap().ticket, w.query(SQL).to_json());
}

#[tokio::test]
async fn a_query_is_refused_by_the_first_thing_that_is_wrong_with_it() {
    let mut w = World::with_documents(&[Mode::Answers]).await;
    let (query, _) = w.query(SQL).peek::<Query>().unwrap();
    let rho = |n: u64| MicroRho::try_from(n).unwrap();
    let other = vec!["h0".to_string(), "h9".to_string()];
    for (query, code) in [
        (Query { permit: Digest::of(b"?"), ..query.clone() }, Code::PermitUnknown),
        (Query { expires: now(), ..query.clone() }, Code::StaleMessage),
        (Query { expires: now() + Days::hours(25), ..query.clone() }, Code::StaleMessage),
        (Query { micro_rho: rho(1001), ..query.clone() }, Code::BudgetQuery),
        (Query { micro_rho: rho(0), ..query.clone() }, Code::BudgetQuery),
        (Query { holders: other, ..query.clone() }, Code::HolderNotPermitted),
        (Query { sql: "SELECT person_id FROM person".into(), ..query.clone() }, Code::RowLevel),
        (Query { sql: "SELEC 1".into(), ..query.clone() }, Code::SqlSyntax),
    ] {
        let envelope = Envelope::sign(&query, &[&w.person]).unwrap();
        assert_eq!(w.ask(&envelope).await.unwrap_err().code, code, "{query:?}");
    }
    let stranger = Envelope::sign(&query, &[&key()]).unwrap();
    assert_eq!(w.ask(&stranger).await.unwrap_err().code, Code::UnknownPerson);

    let (_, first) = Envelope::sign(&status(1, None, Vec::new()), &[&w.governance])
        .unwrap()
        .peek::<sekisho_protocol::status::Status>()
        .unwrap();
    let mut suspends = status(2, Some(first), Vec::new());
    suspends.suspended_studies.push(w.permit.study_id.clone());
    w.put(&Envelope::sign(&suspends, &[&w.governance]).unwrap()).await.unwrap();
    assert_eq!(w.ask(&w.query(SQL)).await.unwrap_err().code, Code::Suspended);
    w.permit.id = "another".into();
    assert_eq!(w.ask(&w.query(SQL)).await.unwrap_err().code, Code::PermitUnknown);
}

#[tokio::test]
async fn a_control_stream_that_begins_with_anything_but_a_hello_is_dropped() {
    let w = World::with_documents(&[Mode::Answers]).await;
    let (transport, _) = &w.keys["h0"];
    let peer = w.daemon.nodes.local_peer();
    let role = transport::Role::Dial { peer, addr: w.daemon.listen_addrs()[0].clone() };
    let (network, _incoming) = Network::start(transport.seed(), role, Limits::default()).await.unwrap();
    until_connected(&network, peer).await;
    let other = Hello { version: control::VERSION, name: "h1".into(), software: "fake".into() };
    for frame in [
        control::encode(&FromNode::Holdings(Holdings::default())).unwrap(),
        control::encode(&FromNode::Hello(other)).unwrap(),
        b"garbage".to_vec(),
    ] {
        let mut io = network.open_control(peer).await.unwrap();
        transport::write_frame(&mut io, &frame, SOON).await.unwrap();
        assert!(transport::read_frame(&mut io, SOON).await.is_err());
    }
}
