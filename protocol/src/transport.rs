//! Byte streams between a hospital's node and a coordinator, on which gRPC and control frames run.
//!
//! A coordinator listens; a node dials that one peer, for ever, and has no listener. Either side opens
//! streams on the connection that the node made: [`FLIGHT`] streams carry HTTP/2 for tonic,
//! [`CONTROL`] streams carry [frames](read_frame). A multiaddr with `/quic-v1` means QUIC, one with
//! `/tcp` means TCP with Noise and Yamux.
//!
//! Promises: the peer id of every stream was proven in the handshake; peers outside `allowed` are
//! dropped at the connection, and at once when they leave it; a peer has one live connection, the
//! newest; every queue, wait and table has a bound ([`Limits`]).
//!
//! Deliberately absent: discovery, relays, routing, message formats, and any retry of a request. A
//! stream that breaks stays broken; its user opens another.

mod bounded;
mod dialler;
mod driver;
mod error;
mod frame;
mod http2;
mod identity;
mod listener;
mod refused;
mod streams;
mod swarm;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::{BoxStream, poll_fn};
use libp2p::StreamProtocol;
use tokio::sync::{mpsc, watch};
use tonic::transport::Channel;
use zeroize::Zeroizing;

pub use self::bounded::{Bounded, Connection};
pub use self::error::{FrameError, TransportError};
pub use self::frame::{MAX_FRAME_BYTES, read_frame, write_frame};
pub use self::http2::server_builder;
pub use self::identity::{peer_id_of_public_key, peer_id_of_seed};
pub use self::refused::{refusal_of, status_of};
pub use self::streams::{P2pIo, PeerInfo};
pub use libp2p::{Multiaddr, PeerId};

use self::driver::Driver;
use self::streams::{Opener, accept};

/// The protocol of streams that carry Arrow Flight.
pub const FLIGHT: &str = "/sekisho/flight/1";
/// The protocol of streams that carry control frames.
pub const CONTROL: &str = "/sekisho/control/1";

/// How long [`Network::start`] waits for its listeners.
const LISTEN_TIMEOUT: Duration = Duration::from_secs(10);

/// Where this party listens or dials.
#[derive(Debug, Clone)]
pub enum Role {
    /// A coordinator: listens, and dials nobody.
    Listen {
        /// IP addresses to listen on; port 0 lets the system choose.
        addrs: Vec<Multiaddr>,
        /// The peers that may be connected. One that leaves the set is disconnected at once; when the
        /// sender is gone, the last set stays in force.
        allowed: watch::Receiver<BTreeSet<PeerId>>,
    },
    /// A node: keeps one connection to one peer, and has no listener.
    Dial {
        /// The only peer that is accepted.
        peer: PeerId,
        /// Where it listens: an IP address or a name, then `/tcp/…` or `/udp/…/quic-v1`.
        addr: Multiaddr,
    },
}

/// The bounds of a [`Network`].
#[derive(Debug, Clone)]
pub struct Limits {
    /// Streams that may be open on one connection, from 8 to 1024.
    pub max_streams_per_connection: usize,
    /// Established connections, of all peers together.
    pub max_connections: u32,
    /// Inbound connections that have not finished their handshake.
    pub max_handshakes: u32,
    /// Accepted streams that wait to be taken from [`Incoming`], per protocol, from 1 to 4096; beyond
    /// it streams are dropped, and their openers try again.
    pub queued_streams: usize,
    /// How long opening a stream may take, retries included.
    pub open_timeout: Duration,
    /// How often a connection is pinged.
    pub ping_interval: Duration,
    /// How long a ping may take. A connection that answers none for `ping_interval + ping_timeout` is
    /// closed.
    pub ping_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_streams_per_connection: 64,
            max_connections: 512,
            max_handshakes: 128,
            queued_streams: 256,
            open_timeout: Duration::from_secs(10),
            ping_interval: Duration::from_secs(10),
            ping_timeout: Duration::from_secs(10),
        }
    }
}

impl Limits {
    fn check(&self) -> Result<(), TransportError> {
        let streams = self.max_streams_per_connection;
        let rows = [("max_streams_per_connection", streams, 8, 1024), ("queued_streams", self.queued_streams, 1, 4096)];
        for (name, value, min, max) in rows {
            if !(min..=max).contains(&value) {
                return Err(TransportError::Limit { name, value, min, max });
            }
        }
        Ok(())
    }
}

/// The streams that peers open to us. Both end when the network stops; dropping one of them refuses
/// its protocol.
pub struct Incoming {
    /// Accepted [`CONTROL`] streams with the peer that opened each.
    pub control: BoxStream<'static, (PeerId, P2pIo)>,
    /// Accepted [`FLIGHT`] streams, for tonic's `serve_with_incoming`; never an error.
    pub flight: BoxStream<'static, io::Result<P2pIo>>,
}

/// A handle of the running network; it stops when the last handle is dropped, or by
/// [`Network::shutdown`].
#[derive(Clone)]
pub struct Network {
    inner: Arc<Inner>,
}

struct Inner {
    local_peer: PeerId,
    addrs: watch::Receiver<Vec<Multiaddr>>,
    opener: Opener,
    /// One HTTP/2 connection per peer, however many callers ask for a channel.
    channels: Mutex<BTreeMap<PeerId, Channel>>,
    max_channels: usize,
    stop: watch::Sender<bool>,
}

impl Network {
    /// Starts the network on the current tokio runtime; returns once every address is listened on,
    /// having tried each for up to 3 s. A
    /// node's first connection is not waited for: watch [`Network::connected`].
    ///
    /// `transport_key` is the 32-byte seed of this party's Ed25519 transport key.
    ///
    /// # Errors
    /// When a limit or an address cannot be honoured, or an address cannot be listened on.
    pub async fn start(
        transport_key: Zeroizing<[u8; 32]>,
        role: Role,
        limits: Limits,
    ) -> Result<(Self, Incoming), TransportError> {
        limits.check()?;
        let swarm = swarm::build(identity::keypair(transport_key)?, &limits)?;
        let local_peer = *swarm.local_peer_id();
        let control = swarm.behaviour().streams.new_control();
        let (stop, stopping) = watch::channel(false);
        let queue = |protocol| queue(&control, protocol, &limits, &stopping);
        let (mut controls, mut flights) = (queue(CONTROL), queue(FLIGHT));
        let mut driver = Driver::new(swarm, role, limits.ping_interval + limits.ping_timeout)?;
        tokio::time::timeout(LISTEN_TIMEOUT, driver.listening())
            .await
            .unwrap_or_else(|_| Err(TransportError::Listen(io::ErrorKind::TimedOut.into())))?;
        let inner = Inner {
            local_peer,
            addrs: driver.addrs(),
            opener: Opener::new(control.clone(), driver.connected(), limits.open_timeout),
            channels: Mutex::default(),
            max_channels: usize::try_from(limits.max_connections).unwrap_or(usize::MAX),
            stop,
        };
        tokio::spawn(driver.run(stopping));
        let incoming = Incoming {
            control: poll_fn(move |cx| controls.poll_recv(cx)).map(|io| (io.peer(), io)).boxed(),
            flight: poll_fn(move |cx| flights.poll_recv(cx)).map(Ok).boxed(),
        };
        Ok((Self { inner: Arc::new(inner) }, incoming))
    }

    /// Our own peer id.
    #[must_use]
    pub fn local_peer(&self) -> PeerId {
        self.inner.local_peer
    }

    /// The addresses we listen on, with their real ports; none for a node.
    #[must_use]
    pub fn listen_addrs(&self) -> Vec<Multiaddr> {
        self.inner.addrs.borrow().clone()
    }

    /// The peers that have a live connection with us, now and as it changes. A connection replaced by
    /// a newer one of the same peer is no change.
    #[must_use]
    pub fn connected(&self) -> watch::Receiver<BTreeSet<PeerId>> {
        self.inner.opener.connected().clone()
    }

    /// Opens a control stream to a connected peer, which has taken it into its queue on return.
    ///
    /// # Errors
    /// [`TransportError::NotConnected`] at once when the peer is away, [`TransportError::Unsupported`]
    /// when it takes no control streams, [`TransportError::OpenTimedOut`] when it is too busy.
    pub async fn open_control(&self, peer: PeerId) -> Result<P2pIo, TransportError> {
        self.inner.opener.open(peer, CONTROL).await
    }

    /// A gRPC channel to the peer, shared by all callers. It connects on its first call, and again on
    /// the next call after a loss; calls fail while the peer is away. Needs a tokio runtime.
    #[must_use]
    pub fn flight_channel(&self, peer: PeerId) -> Channel {
        let mut channels = self.inner.channels.lock().unwrap_or_else(PoisonError::into_inner);
        if channels.len() >= self.inner.max_channels {
            let connected = self.inner.opener.connected().borrow();
            channels.retain(|peer, _| connected.contains(peer));
        }
        channels.entry(peer).or_insert_with(|| http2::channel(self.inner.opener.clone(), peer)).clone()
    }

    /// Closes every connection and listener, and waits for it. A QUIC port may stay in use for a moment;
    /// [`Network::start`] waits for it.
    pub async fn shutdown(&self) {
        self.inner.stop.send_replace(true);
        self.inner.stop.closed().await;
    }
}

/// Accepts streams of `protocol` into a bounded queue.
fn queue(
    control: &libp2p_stream::Control,
    protocol: &'static str,
    limits: &Limits,
    stop: &watch::Receiver<bool>,
) -> mpsc::Receiver<P2pIo> {
    let (sender, receiver) = mpsc::channel(limits.queued_streams);
    // Registered once per fresh swarm, so it is never registered already.
    if let Ok(incoming) = control.clone().accept(StreamProtocol::new(protocol)) {
        tokio::spawn(accept(incoming, sender, limits.open_timeout, stop.clone()));
    }
    receiver
}
