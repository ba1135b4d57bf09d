//! Opening a listening socket, and saying why it could not be opened.
//!
//! TCP sockets are opened with `SO_REUSEPORT` by libp2p, so that a second coordinator of the same user
//! on the same port is *not* noticed here; QUIC sockets are not.

use std::error::Error;
use std::io;
use std::time::Duration;

use libp2p::core::transport::ListenerId;
use libp2p::{Multiaddr, Swarm};
use tokio::time::{Instant, sleep};

use super::TransportError;
use super::swarm::Behaviour;

/// How long, and how often, an address is tried.
const BIND_TIME: Duration = Duration::from_secs(3);
const BIND_PAUSE: Duration = Duration::from_millis(100);

/// Opens a listening socket. Tries for a little while, since a predecessor may still be closing its
/// own (QUIC does that in the background) or the interface may be coming up; libp2p hides which.
pub(super) async fn bind(swarm: &mut Swarm<Behaviour>, addr: Multiaddr) -> Result<ListenerId, TransportError> {
    let give_up = Instant::now() + BIND_TIME;
    loop {
        match swarm.listen_on(addr.clone()) {
            Ok(id) => return Ok(id),
            Err(error) if Instant::now() >= give_up => return Err(TransportError::Listen(root_cause(&error))),
            Err(_) => sleep(BIND_PAUSE).await,
        }
    }
}

/// The innermost cause that has a text: libp2p's boxes print nothing themselves.
fn root_cause(error: &(dyn Error + 'static)) -> io::Error {
    let mut cause = error;
    loop {
        let boxed = cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        match boxed.map(|inner| inner as &(dyn Error + 'static)).or_else(|| cause.source()) {
            Some(inner) => cause = inner,
            None => return io::Error::other(cause.to_string()),
        }
    }
}
