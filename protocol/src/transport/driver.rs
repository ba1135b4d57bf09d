//! The one task that owns the swarm: it admits, replaces and closes connections.
//!
//! Promises: one live connection per peer, the newest; `connected` names exactly the peers that have
//! one and are allowed; a peer that leaves the roster loses its connection in the same step. It logs
//! peer ids only, no addresses.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io;
use std::time::Duration;

use futures::StreamExt;
use libp2p::core::transport::ListenerId;
use libp2p::swarm::{ConnectionId, DialError, ListenError, SwarmEvent};
use libp2p::{Multiaddr, PeerId, Swarm, ping};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use super::dialler::{Dialler, check_addr};
use super::listener::bind;
use super::streams::stopped;
use super::swarm::{Behaviour, BehaviourEvent};
use super::{Role, TransportError};

/// How long closing connections may delay the end.
const CLOSING_TIME: Duration = Duration::from_secs(1);

enum Side {
    Listen {
        allowed: watch::Receiver<BTreeSet<PeerId>>,
        /// Configured addresses that have no socket yet.
        unbound: Vec<Multiaddr>,
        /// Sockets that have not reported their address yet.
        waiting: HashSet<ListenerId>,
    },
    Dial(Dialler),
}

/// A peer's live connection.
struct Live {
    id: ConnectionId,
    /// When it was made, or last answered a ping.
    heard: Instant,
}

/// What the role asks for next.
enum Due {
    Roster(BTreeSet<PeerId>),
    Dial(io::Result<Vec<Multiaddr>>),
}

impl Side {
    async fn due(&mut self) -> Due {
        match self {
            Self::Listen { allowed, .. } => {
                if allowed.changed().await.is_err() {
                    // No one can change the set any more: the last one stays in force.
                    futures::future::pending::<()>().await;
                }
                Due::Roster(allowed.borrow_and_update().clone())
            }
            Self::Dial(dialler) => Due::Dial(dialler.due().await),
        }
    }
}

pub(super) struct Driver {
    swarm: Swarm<Behaviour>,
    side: Side,
    live: BTreeMap<PeerId, Live>,
    /// A connection that answers no ping for this long is dead.
    dead_after: Duration,
    connected: watch::Sender<BTreeSet<PeerId>>,
    addrs: watch::Sender<Vec<Multiaddr>>,
    /// How often another party than the peer answered where it was dialled.
    strangers: watch::Sender<u64>,
}

impl Driver {
    pub(super) fn new(swarm: Swarm<Behaviour>, role: Role, dead_after: Duration) -> Result<Self, TransportError> {
        let local = *swarm.local_peer_id();
        let (side, peers) = match role {
            Role::Listen { addrs, mut allowed } => {
                for addr in &addrs {
                    check_addr(addr, Some(local), false)?;
                }
                let peers = allowed.borrow_and_update().clone();
                (Side::Listen { allowed, unbound: addrs, waiting: HashSet::new() }, peers)
            }
            Role::Dial { peer, addr } => (Side::Dial(Dialler::new(peer, addr)?), BTreeSet::from([peer])),
        };
        let connected = watch::Sender::new(BTreeSet::new());
        let (addrs, strangers) = (watch::Sender::new(Vec::new()), watch::Sender::new(0));
        let mut driver = Self { swarm, side, live: BTreeMap::new(), dead_after, connected, addrs, strangers };
        driver.admit(&peers);
        Ok(driver)
    }

    pub(super) fn connected(&self) -> watch::Receiver<BTreeSet<PeerId>> {
        self.connected.subscribe()
    }

    pub(super) fn addrs(&self) -> watch::Receiver<Vec<Multiaddr>> {
        self.addrs.subscribe()
    }

    pub(super) fn strangers(&self) -> watch::Receiver<u64> {
        self.strangers.subscribe()
    }

    /// Runs until every configured address is listened on.
    pub(super) async fn listening(&mut self) -> Result<(), TransportError> {
        if let Side::Listen { unbound, waiting, .. } = &mut self.side {
            for addr in unbound.drain(..) {
                waiting.insert(bind(&mut self.swarm, addr).await?);
            }
        }
        while matches!(&self.side, Side::Listen { waiting, .. } if !waiting.is_empty()) {
            let event = self.swarm.select_next_some().await;
            if let SwarmEvent::ListenerClosed { reason, .. } = event {
                let error = reason.err().unwrap_or_else(|| io::ErrorKind::AddrNotAvailable.into());
                return Err(TransportError::Listen(error));
            }
            self.on_event(event);
        }
        Ok(())
    }

    /// Runs until told to stop, then closes every connection.
    pub(super) async fn run(mut self, mut stop: watch::Receiver<bool>) {
        loop {
            let silent = self.live.iter().min_by_key(|(_, live)| live.heard).map(|(peer, live)| (*peer, live.heard));
            tokio::select! {
                () = stopped(&mut stop) => break,
                peer = silence(silent, self.dead_after) => self.on_silence(peer),
                due = self.side.due() => self.on_due(due),
                event = self.swarm.select_next_some() => self.on_event(event),
            }
        }
        self.admit(&BTreeSet::new());
        let closing = async {
            while self.swarm.connected_peers().next().is_some() {
                self.swarm.select_next_some().await;
            }
        };
        let _ = timeout(CLOSING_TIME, closing).await;
        // The sockets go before `stop` does, for which `shutdown` waits.
        drop(self);
        drop(stop);
    }

    fn on_due(&mut self, due: Due) {
        match due {
            Due::Roster(peers) => self.admit(&peers),
            Due::Dial(addrs) => self.dial(addrs),
        }
    }

    /// Lets exactly these peers be connected.
    fn admit(&mut self, peers: &BTreeSet<PeerId>) {
        let gate = &mut self.swarm.behaviour_mut().gate;
        let gone: Vec<_> = gate.allowed_peers().iter().filter(|peer| !peers.contains(peer)).copied().collect();
        for peer in peers {
            gate.allow_peer(*peer);
        }
        for peer in gone {
            gate.disallow_peer(peer);
            if self.live.remove(&peer).is_some() {
                tracing::info!(%peer, "peer no longer admitted, its connection is closed");
            }
        }
        self.publish();
    }

    fn dial(&mut self, addrs: io::Result<Vec<Multiaddr>>) {
        let Side::Dial(dialler) = &mut self.side else { return };
        let peer = dialler.peer();
        let addrs = match addrs {
            Ok(addrs) => addrs,
            Err(error) => {
                tracing::warn!(%peer, kind = %error.kind(), "the peer's name does not resolve");
                dialler.lost();
                return;
            }
        };
        if let Err(error) = self.swarm.dial(dialler.dial(addrs)) {
            tracing::warn!(%peer, cause = dial_cause(&error), "not dialled");
            dialler.lost();
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "foreign enum: the other events need nothing")]
    fn on_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, .. } => {
                self.on_established(peer_id, connection_id);
            }
            SwarmEvent::ConnectionClosed { peer_id, connection_id, .. } => {
                self.on_gone(peer_id, connection_id);
            }
            // A failed ping is followed by others: only silence counts.
            SwarmEvent::Behaviour(BehaviourEvent::Ping(ping::Event { peer, connection, result: Ok(_) })) => {
                if let Some(live) = self.live.get_mut(&peer).filter(|live| live.id == connection) {
                    live.heard = Instant::now();
                }
            }
            SwarmEvent::OutgoingConnectionError { connection_id, error, .. } => {
                if let Side::Dial(dialler) = &mut self.side
                    && dialler.is_dialling(connection_id)
                {
                    tracing::warn!(peer = %dialler.peer(), cause = dial_cause(&error), "not connected");
                    if matches!(error, DialError::WrongPeerId { .. }) {
                        self.strangers.send_modify(|times| *times = times.saturating_add(1));
                    }
                    dialler.lost();
                }
            }
            SwarmEvent::IncomingConnectionError { peer_id: Some(peer), error: ListenError::Denied { .. }, .. } => {
                tracing::info!(%peer, "connection refused: off the roster or over a limit");
            }
            SwarmEvent::NewListenAddr { listener_id, address } => {
                if let Side::Listen { waiting, .. } = &mut self.side {
                    waiting.remove(&listener_id);
                }
                self.addrs.send_modify(|addrs| addrs.push(address));
            }
            SwarmEvent::ExpiredListenAddr { address, .. } => {
                self.addrs.send_modify(|addrs| addrs.retain(|addr| *addr != address));
            }
            SwarmEvent::ListenerClosed { .. } => tracing::error!("a listener has closed"),
            _ => {}
        }
    }

    fn on_established(&mut self, peer: PeerId, id: ConnectionId) {
        if !self.swarm.behaviour().gate.allowed_peers().contains(&peer) {
            self.swarm.close_connection(id);
            return;
        }
        if let Some(old) = self.live.insert(peer, Live { id, heard: Instant::now() }) {
            tracing::info!(%peer, "a new connection replaces the older one");
            self.swarm.close_connection(old.id);
        } else {
            tracing::info!(%peer, "connected");
        }
        if let Side::Dial(dialler) = &mut self.side {
            dialler.connected();
        }
        self.publish();
    }

    fn on_silence(&mut self, peer: PeerId) {
        let Some(id) = self.live.get(&peer).map(|live| live.id) else { return };
        tracing::info!(%peer, "no answer to pings, closing the connection");
        self.swarm.close_connection(id);
        // Closing a dead connection may take minutes: it counts as gone now.
        self.on_gone(peer, id);
    }

    /// Forgets a connection; one that was replaced before is no news.
    fn on_gone(&mut self, peer: PeerId, id: ConnectionId) {
        if self.live.get(&peer).is_none_or(|live| live.id != id) {
            return;
        }
        self.live.remove(&peer);
        tracing::info!(%peer, "disconnected");
        if let Side::Dial(dialler) = &mut self.side {
            dialler.lost();
        }
        self.publish();
    }

    fn publish(&self) {
        let now: BTreeSet<_> = self.live.keys().copied().collect();
        self.connected.send_if_modified(|before| {
            let changed = *before != now;
            *before = now;
            changed
        });
    }
}

/// Waits until the peer that was heard of longest ago has been silent for `dead_after`.
async fn silence(silent: Option<(PeerId, Instant)>, dead_after: Duration) -> PeerId {
    let Some((peer, heard)) = silent else { return futures::future::pending().await };
    sleep_until(heard + dead_after).await;
    peer
}

/// Why dialling failed, without addresses.
fn dial_cause(error: &DialError) -> &'static str {
    match error {
        DialError::WrongPeerId { .. } => "another party answers at this address",
        DialError::LocalPeerId { .. } => "this address is our own",
        DialError::Denied { .. } => "refused by our limits",
        DialError::Transport(_) => "no connection, or the handshake failed",
        DialError::NoAddresses => "no address",
        DialError::DialPeerConditionFalse(_) => "already connected",
        DialError::Aborted => "aborted",
    }
}
