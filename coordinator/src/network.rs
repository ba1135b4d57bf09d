//! The nodes of the roster: who may be connected, what each of them holds, and what it lacks.
//!
//! Promises: only nodes of the roster in force are connected, and at once none when it expires; a node that lacks a
//! roster, status or permit is sent it as soon as it says so, never two documents at once; one control stream per
//! node, silent for at most [`SILENCE`]; what a node says is bounded and never logged.
//!
//! Deliberately absent: any dialling (nodes dial in), and any belief in a node beyond its signed acceptances.

mod catalogues;
mod circulation;
mod control;
mod push;
mod succession;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use arrow_flight::flight_service_client::FlightServiceClient;
use chrono::{DateTime, Utc};
use futures::{StreamExt, stream::BoxStream};
use sekisho_protocol::{
    clock::Clock,
    control::Holdings,
    keys::{PublicKey, SecretKey},
    refusal::{Code, Refusal},
    roster::{MAX_MEMBERS, Member, Role},
    transport::{self, Limits, Multiaddr, Network, P2pIo, PeerId, TransportError, refusal_of},
};
use tokio::{
    sync::{Notify, watch},
    task::{AbortHandle, JoinSet},
};
use tonic::{Status, transport::Channel};

use crate::{
    documents::{Current, Documents},
    report::{HolderReport, HolderState, MemberReport, NetworkReport},
    store::Store,
    witnesses::Witnesses,
};

/// How long a node may say nothing on its control stream.
pub const SILENCE: Duration = Duration::from_secs(30);
/// How often the expiry of the roster is looked at, at least: the clock of the wall may be set.
const ROSTER_CHECK: Duration = Duration::from_secs(60);
/// The most connections: every member of the largest roster, and some that are being replaced.
const MAX_CONNECTIONS: u32 = MAX_MEMBERS as u32 + 512;

/// One node, connected now or since the start.
struct Peer {
    id: PeerId,
    /// What it said it holds, and was sent since.
    holdings: Mutex<Holdings>,
    /// It said so again.
    spoke: Notify,
    /// Held while documents are sent to it.
    push: tokio::sync::Mutex<()>,
    /// Its control stream.
    stream: Mutex<Option<AbortHandle>>,
}

/// The nodes of the roster.
pub struct Nodes {
    network: Network,
    documents: Arc<Documents>,
    store: Store,
    witnesses: Arc<Witnesses>,
    clock: Arc<dyn Clock>,
    peers: Mutex<BTreeMap<PeerId, Arc<Peer>>>,
}

/// What [`Nodes::run`] needs and nobody else may hold.
pub struct Running {
    control: BoxStream<'static, (PeerId, P2pIo)>,
    allowed: watch::Sender<BTreeSet<PeerId>>,
}

impl Nodes {
    /// Listens on `addrs`. Nothing is served before [`Nodes::run`] is polled.
    ///
    /// # Errors
    /// When an address cannot be listened on.
    pub async fn listen(
        transport_key: &SecretKey,
        addrs: Vec<Multiaddr>,
        documents: Arc<Documents>,
        store: Store,
        witnesses: Arc<Witnesses>,
        clock: Arc<dyn Clock>,
    ) -> Result<(Self, Running), TransportError> {
        let (allowed, receiver) = watch::channel(allowed_peers(&documents.current(), clock.now()));
        let role = transport::Role::Listen { addrs, allowed: receiver };
        let limits = Limits { max_connections: MAX_CONNECTIONS, ..Limits::default() };
        // Nodes have no reason to open Flight streams to a coordinator: dropping them refuses the protocol.
        let (network, incoming) = Network::start(transport_key.seed(), role, limits).await?;
        let nodes = Self { network, documents, store, witnesses, clock, peers: Mutex::default() };
        Ok((nodes, Running { control: incoming.control, allowed }))
    }

    /// Serves the nodes until the network stops.
    pub async fn run(self: Arc<Self>, running: Running) {
        tokio::select! {
            () = self.follow_roster(running.allowed) => {}
            () = self.accept(running.control) => {}
            () = self.circulate() => {}
        }
    }

    /// The addresses we listen on, with their real ports.
    pub fn listen_addrs(&self) -> Vec<Multiaddr> {
        self.network.listen_addrs()
    }

    /// Our peer id.
    pub fn local_peer(&self) -> PeerId {
        self.network.local_peer()
    }

    /// Closes every connection.
    pub async fn shutdown(&self) {
        self.network.shutdown().await;
    }

    /// A Flight client to the member, when it is connected; no message of more than `max_bytes` is read.
    ///
    /// # Errors
    /// `offline` when it is not connected.
    pub fn flight(&self, member: &Member, max_bytes: usize) -> Result<FlightServiceClient<Channel>, Refusal> {
        let peer = self.connected(member).ok_or_else(|| Refusal::new(Code::Offline, "it is not connected"))?;
        Ok(FlightServiceClient::new(self.network.flight_channel(peer)).max_decoding_message_size(max_bytes))
    }

    /// The network as people see it.
    pub fn report(&self) -> NetworkReport {
        let current = self.documents.current();
        let member = |member: &Member| {
            let peer = member.peer_id.parse().ok().and_then(|id: PeerId| lock(&self.peers).get(&id).cloned());
            let holdings = peer.map(|peer| lock(&peer.holdings).clone()).unwrap_or_default();
            MemberReport {
                name: member.name.clone(),
                connected: self.connected(member).is_some(),
                roster_seq: holdings.roster_seq,
                status_seq: holdings.status_seq,
            }
        };
        NetworkReport {
            roster_seq: current.pinned_roster().map_or(0, |roster| roster.seq),
            status_seq: current.pinned_status().map_or(0, |status| status.seq),
            status_expires: current.pinned_status().map(|status| status.expires),
            members: nodes_of(&current).map(member).collect(),
        }
    }

    fn connected(&self, member: &Member) -> Option<PeerId> {
        let peer = member.peer_id.parse().ok()?;
        self.network.connected().borrow().contains(&peer).then_some(peer)
    }

    fn peer(&self, id: PeerId) -> Arc<Peer> {
        let fresh = || {
            Arc::new(Peer {
                id,
                holdings: Mutex::default(),
                spoke: Notify::new(),
                push: tokio::sync::Mutex::default(),
                stream: Mutex::default(),
            })
        };
        lock(&self.peers).entry(id).or_insert_with(fresh).clone()
    }

    /// Keeps the set of peers that may be connected equal to the nodes of the roster in force.
    async fn follow_roster(&self, allowed: watch::Sender<BTreeSet<PeerId>>) {
        let mut documents = self.documents.watch();
        loop {
            let (current, now) = (documents.borrow_and_update().clone(), self.clock.now());
            let peers = allowed_peers(&current, now);
            lock(&self.peers).retain(|id, _| peers.contains(id));
            allowed.send_if_modified(|known| {
                let changed = *known != peers;
                *known = peers;
                changed
            });
            let expires = current.roster(now).ok().and_then(|roster| (roster.expires - now).to_std().ok());
            tokio::select! {
                changed = documents.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(expires.unwrap_or(ROSTER_CHECK).min(ROSTER_CHECK)) => {}
            }
        }
    }

    /// Takes one control stream per node, the newest.
    async fn accept(self: &Arc<Self>, mut control: BoxStream<'static, (PeerId, P2pIo)>) {
        let mut streams = JoinSet::new();
        loop {
            tokio::select! {
                next = control.next() => {
                    let Some((id, io)) = next else { return };
                    let peer = self.peer(id);
                    let stream = streams.spawn(self.clone().serve(peer.clone(), io));
                    if let Some(older) = lock(&peer.stream).replace(stream) {
                        older.abort();
                    }
                }
                Some(_) = streams.join_next() => {}
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn nodes_of(current: &Current) -> impl Iterator<Item = &Member> {
    let members = current.pinned_roster().map(|roster| roster.members.as_slice()).unwrap_or_default();
    members.iter().filter(|member| member.role == Role::Node)
}

/// The peer ids of the nodes of the roster in force.
fn allowed_peers(current: &Current, now: DateTime<Utc>) -> BTreeSet<PeerId> {
    if current.roster(now).is_err() {
        return BTreeSet::new();
    }
    nodes_of(current).filter_map(|member| member.peer_id.parse().ok()).collect()
}

/// The keys whose signature counts as this member's: its own, unless a status voids it.
pub(crate) fn keys_of(member: &Member, current: &Current) -> Vec<PublicKey> {
    let key = member.signing_key;
    if current.voids(key.fingerprint()) { Vec::new() } else { vec![key] }
}

/// A report of a hospital that did nothing yet.
pub(crate) fn holder(name: &str, state: HolderState) -> HolderReport {
    HolderReport {
        name: name.to_string(),
        state,
        code: None,
        detail: None,
        as_of: None,
        study_left: None,
        stored: None,
        synthetic: false,
        exact_since: None,
        receipt: None,
    }
}

/// A report of a hospital that refused, gave no answer or was not reached, by the code of its refusal.
pub(crate) fn holder_refused(name: &str, refusal: Refusal) -> HolderReport {
    #[expect(clippy::wildcard_enum_match_arm, reason = "of all codes two are no refusals")]
    let state = match refusal.code {
        Code::Offline => HolderState::Offline,
        Code::NoAnswer => HolderState::NoAnswer,
        _ => HolderState::Refused,
    };
    // The words are the node's: on a terminal they must stay words.
    let detail = refusal.detail.chars().filter(|c| !c.is_control()).collect();
    HolderReport { code: Some(refusal.code), detail: Some(detail), ..holder(name, state) }
}

/// What a node's gRPC status means. Without a stable code it is the connection's: whether the node charged is not known.
pub(crate) fn refusal_of_node(status: &Status) -> Refusal {
    let refusal = refusal_of(status);
    if refusal.code == Code::Unavailable && !names_code(status) {
        return Refusal::new(Code::Offline, "the connection broke before the answer was complete");
    }
    refusal
}

/// Whether a status carries a stable code: then these are the node's words, else our own side's of the connection.
pub(crate) fn names_code(status: &Status) -> bool {
    status.metadata().contains_key("sekisho-code")
}
