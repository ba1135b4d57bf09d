//! The HTTP/2 settings that both ends of a Flight stream use.
//!
//! Windows are 16 MiB, since at 23 ms of round trip the defaults cap a transfer at 75 MB/s. gRPC sees
//! an ordinary byte stream; who the peer is was proven below, by Noise or QUIC, so no TLS here.

use std::time::Duration;

use hyper_util::rt::TokioIo;
use libp2p::PeerId;
use tonic::transport::{Channel, Endpoint, Server};

use super::FLIGHT;
use super::streams::Opener;

/// HTTP/2 flow-control window of a stream and of a connection, in bytes.
const WINDOW_BYTES: u32 = 16 * 1024 * 1024;
/// The largest HTTP/2 frame, in bytes.
const FRAME_BYTES: u32 = 256 * 1024;
/// The largest list of headers, in bytes.
const HEADER_BYTES: u32 = 32 * 1024;
/// Calls that one connection may have open.
const CONCURRENT_CALLS: u32 = 64;
/// How often an open connection is probed, and how long an answer may take.
const KEEPALIVE: Duration = Duration::from_secs(20);
/// How long a call may take until its response begins; the body of a response is not timed.
const CALL_TIMEOUT: Duration = Duration::from_secs(600);

/// A tonic server with this transport's windows, limits and keep-alive: add services, then
/// `serve_with_incoming(incoming.flight)`.
#[must_use]
pub fn server_builder() -> Server {
    let calls = usize::try_from(CONCURRENT_CALLS).unwrap_or(usize::MAX);
    Server::builder()
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES)
        .http2_max_header_list_size(HEADER_BYTES)
        .max_concurrent_streams(CONCURRENT_CALLS)
        .concurrency_limit_per_connection(calls)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE))
        .timeout(CALL_TIMEOUT)
}

/// A channel that opens a Flight stream to `peer` whenever it needs a connection.
pub(super) fn channel(opener: Opener, peer: PeerId) -> Channel {
    // tonic asks for a URI; the connector ignores it and the peer only sees it as an authority.
    let endpoint = Endpoint::from_static("http://flight.invalid")
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES)
        .http2_max_header_list_size(HEADER_BYTES)
        .http2_keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE)
        .keep_alive_while_idle(true)
        .connect_timeout(opener.within());
    endpoint.connect_with_connector_lazy(tower::service_fn(move |_| {
        let opener = opener.clone();
        async move { opener.open(peer, FLIGHT).await.map(TokioIo::new) }
    }))
}
