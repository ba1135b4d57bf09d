//! One libp2p stream as tokio's `AsyncRead + AsyncWrite`, opened or accepted.
//!
//! libp2p-stream holds one undelivered stream per protocol and silently drops the next, and with two
//! connections to a peer it picks either. Both are mended here: a task per protocol always polls and
//! hands streams to a bounded queue, the acceptor writes one byte once a stream has its place in that
//! queue, and the opener waits for this byte and tries again when the stream dies without it.

use std::collections::BTreeSet;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::StreamExt;
use libp2p::{PeerId, StreamProtocol};
use libp2p_stream::{Control, IncomingStreams, OpenStreamError};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};
use tokio_util::compat::{Compat, FuturesAsyncReadCompatExt};
use tonic::transport::server::Connected;

use super::TransportError;

/// What the acceptor of a stream writes first.
const ACCEPTED: u8 = 1;
/// How long the opener waits before it tries again.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// A byte stream to one authenticated peer.
pub struct P2pIo {
    peer: PeerId,
    stream: Compat<libp2p::Stream>,
}

impl P2pIo {
    fn new(peer: PeerId, stream: libp2p::Stream) -> Self {
        Self { peer, stream: stream.compat() }
    }

    /// The peer at the other end, as proven by the handshake.
    #[must_use]
    pub fn peer(&self) -> PeerId {
        self.peer
    }
}

impl std::fmt::Debug for P2pIo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("P2pIo").field("peer", &self.peer).finish_non_exhaustive()
    }
}

/// Who sent a gRPC request: tonic puts it into the extensions of every request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerInfo(PeerId);

impl PeerInfo {
    /// The authenticated sender.
    #[must_use]
    pub fn peer(&self) -> PeerId {
        self.0
    }
}

impl Connected for P2pIo {
    type ConnectInfo = PeerInfo;

    fn connect_info(&self) -> PeerInfo {
        PeerInfo(self.peer)
    }
}

impl AsyncRead for P2pIo {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for P2pIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Opens streams to peers that are connected; never dials.
#[derive(Clone)]
pub(super) struct Opener {
    control: Control,
    connected: watch::Receiver<BTreeSet<PeerId>>,
    within: Duration,
}

impl Opener {
    pub(super) fn new(control: Control, connected: watch::Receiver<BTreeSet<PeerId>>, within: Duration) -> Self {
        Self { control, connected, within }
    }

    /// How long [`Opener::open`] tries.
    pub(super) fn within(&self) -> Duration {
        self.within
    }

    pub(super) fn connected(&self) -> &watch::Receiver<BTreeSet<PeerId>> {
        &self.connected
    }

    pub(super) async fn open(&self, peer: PeerId, protocol: &'static str) -> Result<P2pIo, TransportError> {
        let tries = async {
            loop {
                // libp2p-stream would dial an absent peer; only the dialler does that.
                if !self.connected.borrow().contains(&peer) {
                    return Err(TransportError::NotConnected { peer });
                }
                match self.attempt(peer, protocol).await {
                    Ok(io) => return Ok(io),
                    Err(OpenStreamError::UnsupportedProtocol(_)) => {
                        return Err(TransportError::Unsupported { peer, protocol });
                    }
                    Err(error) => tracing::debug!(%peer, protocol, %error, "stream not opened"),
                }
                sleep(RETRY_PAUSE).await;
            }
        };
        let late = TransportError::OpenTimedOut { peer, protocol, after: self.within };
        timeout(self.within, tries).await.unwrap_or(Err(late))
    }

    async fn attempt(&self, peer: PeerId, protocol: &'static str) -> Result<P2pIo, OpenStreamError> {
        let mut control = self.control.clone();
        let stream = control.open_stream(peer, StreamProtocol::new(protocol)).await?;
        let mut io = P2pIo::new(peer, stream);
        if io.read_u8().await? == ACCEPTED { Ok(io) } else { Err(io::Error::from(io::ErrorKind::InvalidData).into()) }
    }
}

/// Waits until the network is told to stop or its last handle is gone.
pub(super) async fn stopped(stop: &mut watch::Receiver<bool>) {
    drop(stop.wait_for(|stop| *stop).await);
}

/// Polls `incoming` until the network stops, or nobody takes streams from `queue` any more.
pub(super) async fn accept(
    mut incoming: IncomingStreams,
    queue: mpsc::Sender<P2pIo>,
    within: Duration,
    mut stop: watch::Receiver<bool>,
) {
    loop {
        let next = tokio::select! {
            () = stopped(&mut stop) => None,
            () = queue.closed() => None,
            next = incoming.next() => next,
        };
        let Some((peer, stream)) = next else { return };
        match queue.clone().try_reserve_owned() {
            Ok(place) => {
                tokio::spawn(acknowledge(P2pIo::new(peer, stream), place, within));
            }
            Err(_) => tracing::warn!(%peer, "stream dropped: the queue of new streams is full"),
        }
    }
}

/// Tells the opener that its stream has a place, and puts it there. Bounded by the places of the queue.
async fn acknowledge(mut io: P2pIo, place: mpsc::OwnedPermit<P2pIo>, within: Duration) {
    let written = timeout(within, async {
        io.write_u8(ACCEPTED).await?;
        io.flush().await
    });
    match written.await {
        Ok(Ok(())) => drop(place.send(io)),
        Ok(Err(_)) | Err(_) => tracing::debug!(peer = %io.peer, "stream ended before its use"),
    }
}
