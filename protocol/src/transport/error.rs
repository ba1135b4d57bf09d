//! What can go wrong between this party and its peers, one enum per operation.
//!
//! Messages name peers by id, limits by number and unit, and never carry bytes of a stream.

use std::io;
use std::time::Duration;

use libp2p::{Multiaddr, PeerId};

/// Why the network could not start, or a stream could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// The 32 bytes are not an Ed25519 key.
    #[error("the transport key is not an Ed25519 key: {0}")]
    Key(#[from] libp2p::identity::DecodingError),
    /// A limit lies outside what the transport can honour.
    #[error("{name} is {value}, but must lie between {min} and {max}")]
    Limit {
        /// Which field of [`Limits`](super::Limits).
        name: &'static str,
        /// What it was set to.
        value: usize,
        /// The least accepted value.
        min: usize,
        /// The greatest accepted value.
        max: usize,
    },
    /// An address is not one that this transport listens on or dials.
    #[error("{addr} cannot be used: {reason}")]
    Address {
        /// The refused address.
        addr: Multiaddr,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Noise could not be set up from the transport key.
    #[error("noise could not be set up: {0}")]
    Noise(#[from] libp2p::noise::Error),
    /// A listening socket could not be opened.
    #[error("cannot listen: {0}; check that the address is local and the port is free")]
    Listen(#[source] io::Error),
    /// The peer has no connection with us at the moment.
    #[error("peer {peer} is not connected")]
    NotConnected {
        /// The absent peer.
        peer: PeerId,
    },
    /// The peer is connected but does not accept streams of this protocol.
    #[error("peer {peer} does not accept {protocol}")]
    Unsupported {
        /// The peer that refused.
        peer: PeerId,
        /// The protocol that was asked for.
        protocol: &'static str,
    },
    /// No stream was accepted by the peer in time, retries included.
    #[error("peer {peer} accepted no {protocol} stream within {} ms", .after.as_millis())]
    OpenTimedOut {
        /// The peer that was asked.
        peer: PeerId,
        /// The protocol that was asked for.
        protocol: &'static str,
        /// How long was waited.
        after: Duration,
    },
}

/// Why a control frame was not read or written; the stream is of no further use.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The frame is longer than [`MAX_FRAME_BYTES`](super::MAX_FRAME_BYTES).
    #[error("a control frame of {len} bytes exceeds the limit of {max} bytes")]
    TooLong {
        /// The announced or given length, in bytes.
        len: usize,
        /// The limit, in bytes.
        max: usize,
    },
    /// The peer ended the stream between two frames.
    #[error("the peer closed the control stream")]
    Closed,
    /// The frame was not complete in time.
    #[error("a control frame was not complete within {} ms", .after.as_millis())]
    TimedOut {
        /// How long was waited.
        after: Duration,
    },
    /// The stream broke, or ended within a frame.
    #[error("the control stream broke: {0}")]
    Io(#[from] io::Error),
}
