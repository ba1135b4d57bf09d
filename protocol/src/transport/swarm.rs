//! The libp2p stack: what is spoken on a connection, and which connections may exist.
//!
//! Deliberately absent: identify, discovery, relays, and dialling on behalf of streams. Peers know
//! each other from the roster.

use std::convert::Infallible;
use std::time::Duration;

use libp2p::allow_block_list::{self, AllowedPeers};
use libp2p::connection_limits::{self, ConnectionLimits};
use libp2p::identity::Keypair;
use libp2p::swarm::NetworkBehaviour;
use libp2p::{Swarm, SwarmBuilder, noise, ping, tcp, yamux};

use super::{Limits, TransportError};

/// A handshake, TCP or QUIC, must be done within this time.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections with one peer that may exist at once: the live one, and dead ones still closing.
const CONNECTIONS_PER_PEER: u32 = 8;
/// QUIC receive windows, in bytes: one stream carries a whole HTTP/2 window.
const QUIC_STREAM_BYTES: u32 = 16 * 1024 * 1024;
const QUIC_CONNECTION_BYTES: u32 = 24 * 1024 * 1024;

/// The order matters: a peer off the roster is refused before anything else sees its connection.
#[derive(NetworkBehaviour)]
pub(super) struct Behaviour {
    pub(super) gate: allow_block_list::Behaviour<AllowedPeers>,
    limits: connection_limits::Behaviour,
    ping: ping::Behaviour,
    pub(super) streams: libp2p_stream::Behaviour,
}

impl Behaviour {
    fn new(limits: &Limits) -> Self {
        let connections = ConnectionLimits::default()
            .with_max_pending_incoming(Some(limits.max_handshakes))
            .with_max_established_per_peer(Some(CONNECTIONS_PER_PEER))
            .with_max_established(Some(limits.max_connections));
        let ping = ping::Config::new().with_interval(limits.ping_interval).with_timeout(limits.ping_timeout);
        Self {
            gate: allow_block_list::Behaviour::default(),
            limits: connection_limits::Behaviour::new(connections),
            ping: ping::Behaviour::new(ping),
            streams: libp2p_stream::Behaviour::new(),
        }
    }
}

pub(super) fn build(keypair: Keypair, limits: &Limits) -> Result<Swarm<Behaviour>, TransportError> {
    let streams = limits.max_streams_per_connection;
    let built = SwarmBuilder::with_existing_identity(keypair)
        .with_tokio()
        .with_tcp(tcp::Config::default().nodelay(true), noise::Config::new, || {
            let mut config = yamux::Config::default();
            config.set_max_num_streams(streams);
            config
        })?
        .with_quic_config(|mut config| {
            config.handshake_timeout = HANDSHAKE_TIMEOUT;
            config.max_concurrent_stream_limit = u32::try_from(streams).unwrap_or(u32::MAX);
            config.max_stream_data = QUIC_STREAM_BYTES;
            config.max_connection_data = QUIC_CONNECTION_BYTES;
            config
        })
        .with_behaviour(|_| Behaviour::new(limits));
    let builder = match built {
        Ok(builder) => builder,
        Err(never) => return Err(absurd(never)),
    };
    Ok(builder
        .with_swarm_config(|config| {
            // Connections live until they break or the roster forbids them; ping finds the dead.
            config.with_idle_connection_timeout(Duration::MAX).with_max_negotiating_inbound_streams(streams)
        })
        .with_connection_timeout(HANDSHAKE_TIMEOUT)
        .build())
}

fn absurd(never: Infallible) -> TransportError {
    match never {}
}
