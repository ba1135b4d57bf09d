//! A node's dialling: one peer, one address, for ever, with jittered exponential backoff.
//!
//! Names (`/dns`, `/dns4`, `/dns6`) are resolved by the system at each attempt, so that a coordinator
//! may move. That the right party answers is proven by its peer id, never by its name.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::ConnectionId;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::{Multiaddr, PeerId};
use tokio::time::{Instant, sleep, timeout};

use super::TransportError;

const FIRST_DELAY: Duration = Duration::from_millis(200);
const LAST_DELAY: Duration = Duration::from_secs(15);
/// A connection that lasted this long starts the backoff anew.
const STABLE_AFTER: Duration = Duration::from_secs(10);
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);
/// How many addresses of a name are tried.
const MAX_RESOLVED: usize = 8;

/// Delays that double from 200 ms to 15 s, each drawn from the upper half of its step.
#[derive(Debug)]
struct Backoff {
    step: Duration,
}

impl Backoff {
    const fn new() -> Self {
        Self { step: FIRST_DELAY }
    }

    /// The next delay; `unit` is uniform in [0, 1).
    fn next(&mut self, unit: f64) -> Duration {
        let delay = self.step.mul_f64(0.5 + unit.clamp(0.0, 1.0) / 2.0);
        self.step = (self.step * 2).min(LAST_DELAY);
        delay
    }
}

pub(super) struct Dialler {
    peer: PeerId,
    addr: Multiaddr,
    backoff: Backoff,
    /// Waits, then resolves; pending for ever while connected or dialling.
    attempt: BoxFuture<'static, io::Result<Vec<Multiaddr>>>,
    dialling: Option<ConnectionId>,
    connected_at: Option<Instant>,
}

impl Dialler {
    /// Dials `peer` at once.
    pub(super) fn new(peer: PeerId, addr: Multiaddr) -> Result<Self, TransportError> {
        check_addr(&addr, Some(peer), true)?;
        let attempt = resolve(addr.clone()).boxed();
        let backoff = Backoff::new();
        Ok(Self { peer, addr, backoff, attempt, dialling: None, connected_at: None })
    }

    pub(super) fn peer(&self) -> PeerId {
        self.peer
    }

    /// Resolves to the addresses to dial once an attempt is due. Cancel safe.
    pub(super) async fn due(&mut self) -> io::Result<Vec<Multiaddr>> {
        let resolved = (&mut self.attempt).await;
        self.attempt = futures::future::pending().boxed();
        resolved
    }

    /// How to dial these addresses; the outcome must be told by one of the methods below.
    pub(super) fn dial(&mut self, addrs: Vec<Multiaddr>) -> DialOpts {
        let opts = DialOpts::peer_id(self.peer)
            // A dead connection may still be closing.
            .condition(PeerCondition::Always)
            .addresses(addrs)
            .build();
        self.dialling = Some(opts.connection_id());
        opts
    }

    pub(super) fn is_dialling(&self, id: ConnectionId) -> bool {
        self.dialling == Some(id)
    }

    pub(super) fn connected(&mut self) {
        self.dialling = None;
        self.connected_at = Some(Instant::now());
    }

    /// The attempt failed or the connection is gone: schedules the next attempt.
    pub(super) fn lost(&mut self) {
        self.dialling = None;
        if self.connected_at.take().is_some_and(|at| at.elapsed() >= STABLE_AFTER) {
            self.backoff = Backoff::new();
        }
        let delay = self.backoff.next(rand::random());
        let addr = self.addr.clone();
        self.attempt = async move {
            sleep(delay).await;
            resolve(addr).await
        }
        .boxed();
    }
}

/// Refuses addresses that are neither TCP nor QUIC, or that name another peer.
pub(super) fn check_addr(addr: &Multiaddr, peer: Option<PeerId>, names: bool) -> Result<(), TransportError> {
    let refuse = |reason| Err(TransportError::Address { addr: addr.clone(), reason });
    let mut parts: Vec<_> = addr.iter().collect();
    if let Some(Protocol::P2p(named)) = parts.last() {
        if Some(*named) != peer {
            return refuse("it ends with the id of another peer");
        }
        parts.pop();
    }
    match parts.as_slice() {
        [Protocol::Dns(_) | Protocol::Dns4(_) | Protocol::Dns6(_), ..] if !names => {
            refuse("one listens on an IP address, not on a name")
        }
        [
            Protocol::Ip4(_) | Protocol::Ip6(_) | Protocol::Dns(_) | Protocol::Dns4(_) | Protocol::Dns6(_),
            Protocol::Tcp(_),
        ]
        | [
            Protocol::Ip4(_) | Protocol::Ip6(_) | Protocol::Dns(_) | Protocol::Dns4(_) | Protocol::Dns6(_),
            Protocol::Udp(_),
            Protocol::QuicV1,
        ] => Ok(()),
        _ => refuse("expected /ip4, /ip6 or /dns, then /tcp/PORT or /udp/PORT/quic-v1"),
    }
}

/// `addr` with a leading name replaced by each of its IP addresses.
async fn resolve(addr: Multiaddr) -> io::Result<Vec<Multiaddr>> {
    let (name, v4, v6) = match addr.iter().next() {
        Some(Protocol::Dns(name)) => (name, true, true),
        Some(Protocol::Dns4(name)) => (name, true, false),
        Some(Protocol::Dns6(name)) => (name, false, true),
        _ => return Ok(vec![addr]),
    };
    let found = timeout(RESOLVE_TIMEOUT, tokio::net::lookup_host((&*name, 0))).await??;
    let addrs: Vec<_> = found
        .map(|socket| socket.ip())
        .filter(|ip| match ip {
            IpAddr::V4(_) => v4,
            IpAddr::V6(_) => v6,
        })
        .take(MAX_RESOLVED)
        .filter_map(|ip| addr.replace(0, |_| Some(Protocol::from(ip))))
        .collect();
    if addrs.is_empty() { Err(io::ErrorKind::NotFound.into()) } else { Ok(addrs) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_from_200_ms_to_15_s_within_their_jitter() {
        for (unit, share) in [(0.0, 0.5), (0.5, 0.75), (1.0, 1.0)] {
            let mut backoff = Backoff::new();
            let delays: Vec<_> = (0..9).map(|_| backoff.next(unit).as_secs_f64()).collect();
            let steps = [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 15.0, 15.0];
            for (delay, step) in delays.iter().zip(steps) {
                assert!((delay - step * share).abs() < 1e-6, "{delay} {step} {share}");
            }
        }
    }

    #[test]
    fn only_tcp_and_quic_addresses_of_the_right_peer_are_dialled() {
        let us = PeerId::random();
        let rows = [
            ("/ip4/127.0.0.1/tcp/4001".to_owned(), true),
            ("/ip6/::1/udp/4001/quic-v1".to_owned(), true),
            ("/dns/coordinator.example/tcp/4001".to_owned(), true),
            (format!("/dns4/coordinator.example/tcp/4001/p2p/{us}"), true),
            (format!("/ip4/127.0.0.1/tcp/4001/p2p/{}", PeerId::random()), false),
            ("/ip4/127.0.0.1/udp/4001".to_owned(), false),
            ("/ip4/127.0.0.1/tcp/4001/ws".to_owned(), false),
            ("/tcp/4001".to_owned(), false),
        ];
        for (addr, good) in rows {
            let checked = check_addr(&addr.parse().unwrap(), Some(us), true);
            assert_eq!(checked.is_ok(), good, "{addr}: {checked:?}");
        }
        assert!(check_addr(&"/dns/localhost/tcp/1".parse().unwrap(), None, false).is_err());
    }

    #[tokio::test]
    async fn a_name_is_replaced_by_its_addresses() {
        let found = resolve("/dns4/localhost/tcp/4001".parse().unwrap()).await.unwrap();
        assert_eq!(found, ["/ip4/127.0.0.1/tcp/4001".parse::<Multiaddr>().unwrap()]);
    }
}
