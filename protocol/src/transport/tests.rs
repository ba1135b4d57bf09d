//! Two networks over real loopback sockets.

use std::convert::Infallible;

use libp2p::multiaddr::Protocol;
use tokio::io::{AsyncReadExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tonic::body::Body;
use tonic::codegen::http::{Request, Response};
use tonic::server::NamedService;
use tower::ServiceExt;

use super::*;

const TCP: &str = "/ip4/127.0.0.1/tcp/0";
const QUIC: &str = "/ip4/127.0.0.1/udp/0/quic-v1";
const SOON: Duration = Duration::from_secs(30);

fn seed(byte: u8) -> Zeroizing<[u8; 32]> {
    Zeroizing::new([byte; 32])
}

fn peer(byte: u8) -> PeerId {
    peer_id_of_seed(&seed(byte)).unwrap()
}

/// A coordinator with key 1, and the sender of its roster.
async fn listen(addr: &str, allowed: &[PeerId]) -> (Network, Incoming, watch::Sender<BTreeSet<PeerId>>) {
    let (roster, allowed) = watch::channel(allowed.iter().copied().collect());
    let role = Role::Listen { addrs: vec![addr.parse().unwrap()], allowed };
    let (network, incoming) = Network::start(seed(1), role, Limits::default()).await.unwrap();
    (network, incoming, roster)
}

/// A node with this key that dials the coordinator.
async fn dial(key: u8, to: &Network) -> (Network, Incoming) {
    let role = Role::Dial { peer: to.local_peer(), addr: to.listen_addrs()[0].clone() };
    Network::start(seed(key), role, Limits::default()).await.unwrap()
}

/// Waits until `network` is, or is not, connected with `peer`.
async fn until(network: &Network, peer: PeerId, connected: bool) {
    let mut peers = network.connected();
    let waited = peers.wait_for(|peers| peers.contains(&peer) == connected);
    tokio::time::timeout(SOON, waited).await.expect("the connection changes in time").unwrap();
}

/// A frame goes from the coordinator to the node, and back on the same stream.
async fn check_round_trip(addr: &str) {
    let (coordinator, _coordinator_in, _roster) = listen(addr, &[peer(2)]).await;
    let (node, mut node_in) = dial(2, &coordinator).await;
    until(&coordinator, peer(2), true).await;
    until(&node, peer(1), true).await;
    assert!(node.listen_addrs().is_empty());

    let mut ours = coordinator.open_control(peer(2)).await.unwrap();
    assert_eq!(ours.peer(), peer(2));
    let (from, mut theirs) = node_in.control.next().await.unwrap();
    assert_eq!(from, peer(1));
    write_frame(&mut ours, b"hello", SOON).await.unwrap();
    assert_eq!(read_frame(&mut theirs, SOON).await.unwrap(), b"hello");
    let long = vec![3; MAX_FRAME_BYTES];
    let (written, read) = tokio::join!(write_frame(&mut theirs, &long, SOON), read_frame(&mut ours, SOON));
    written.unwrap();
    assert_eq!(read.unwrap(), long);
    drop(theirs);
    assert!(read_frame(&mut ours, SOON).await.is_err());

    coordinator.shutdown().await;
    assert!(coordinator.connected().borrow().is_empty());
    assert!(matches!(coordinator.open_control(peer(2)).await, Err(TransportError::NotConnected { .. })));
    until(&node, peer(1), false).await;
}

#[tokio::test]
async fn a_control_frame_crosses_tcp_both_ways() {
    check_round_trip(TCP).await;
}

#[tokio::test]
async fn a_control_frame_crosses_quic_both_ways() {
    check_round_trip(QUIC).await;
}

#[tokio::test]
async fn only_peers_on_the_roster_stay_connected() {
    let (coordinator, mut coordinator_in, roster) = listen(TCP, &[]).await;
    let (node, _node_in) = dial(2, &coordinator).await;
    let mut connected = coordinator.connected();
    let early = tokio::time::timeout(Duration::from_millis(1500), connected.changed()).await;
    assert!(early.is_err(), "a peer off the roster was connected");

    roster.send_replace(BTreeSet::from([peer(2)]));
    until(&coordinator, peer(2), true).await;
    let mut stream = node.open_control(peer(1)).await.unwrap();
    let (_, mut accepted) = coordinator_in.control.next().await.unwrap();

    roster.send_replace(BTreeSet::new());
    until(&coordinator, peer(2), false).await;
    until(&node, peer(1), false).await;
    assert!(!matches!(stream.read(&mut [0; 1]).await, Ok(1..)));
    assert!(!matches!(accepted.read(&mut [0; 1]).await, Ok(1..)));
}

#[tokio::test]
async fn another_party_at_the_peers_address_is_counted_and_never_connected() {
    for addr in [TCP, QUIC] {
        let (stranger, _incoming, _roster) = listen(addr, &[peer(2)]).await;
        let role = Role::Dial { peer: peer(9), addr: stranger.listen_addrs()[0].clone() };
        let (node, _node_in) = Network::start(seed(2), role, Limits::default()).await.unwrap();
        let mut strangers = node.strangers();
        let met = strangers.wait_for(|times| *times > 0);
        tokio::time::timeout(SOON, met).await.expect("it is noticed in time").unwrap();
        assert!(node.connected().borrow().is_empty(), "{addr}");
    }
}

#[tokio::test]
async fn a_node_comes_back_after_the_coordinator_restarts_on_the_same_port() {
    for addr in [TCP, QUIC] {
        let (coordinator, incoming, _roster) = listen(addr, &[peer(2)]).await;
        let (node, _node_in) = dial(2, &coordinator).await;
        until(&node, peer(1), true).await;
        let addr = coordinator.listen_addrs()[0].to_string();
        coordinator.shutdown().await;
        drop((coordinator, incoming));
        until(&node, peer(1), false).await;

        let (again, mut incoming, _roster) = listen(&addr, &[peer(2)]).await;
        until(&again, peer(2), true).await;
        until(&node, peer(1), true).await;
        node.open_control(peer(1)).await.unwrap();
        assert_eq!(incoming.control.next().await.unwrap().0, peer(2));
    }
}

#[tokio::test]
async fn the_newest_connection_of_a_peer_wins() {
    let (coordinator, _incoming, _roster) = listen(TCP, &[peer(2)]).await;
    let (first, _first_in) = dial(2, &coordinator).await;
    until(&first, peer(1), true).await;
    let (second, mut second_in) = dial(2, &coordinator).await;
    until(&second, peer(1), true).await;
    until(&first, peer(1), false).await;
    first.shutdown().await;
    until(&coordinator, peer(2), true).await;
    coordinator.open_control(peer(2)).await.unwrap();
    assert_eq!(second_in.control.next().await.unwrap().0, peer(1));
}

/// Forwards connections to `to`; those that exist when the sender speaks stay open but fall silent.
async fn proxy(to: &Network) -> (Multiaddr, watch::Sender<()>) {
    let Some(Protocol::Tcp(to)) = to.listen_addrs()[0].iter().nth(1) else { panic!("not TCP") };
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (freeze, frozen) = watch::channel(());
    tokio::spawn(async move {
        loop {
            let (mut from, _) = listener.accept().await.unwrap();
            let mut frozen = frozen.clone();
            frozen.mark_unchanged();
            tokio::spawn(async move {
                let mut to = TcpStream::connect(("127.0.0.1", to)).await.unwrap();
                tokio::select! {
                    _ = frozen.changed() => std::future::pending().await,
                    _ = copy_bidirectional(&mut from, &mut to) => {}
                }
            });
        }
    });
    (format!("/ip4/127.0.0.1/tcp/{port}").parse().unwrap(), freeze)
}

#[tokio::test]
async fn a_node_leaves_a_dead_connection_and_its_new_one_replaces_it() {
    let (coordinator, _incoming, _roster) = listen(TCP, &[peer(2)]).await;
    let (addr, freeze) = proxy(&coordinator).await;
    let moment = Duration::from_millis(200);
    let limits = Limits { ping_interval: moment, ping_timeout: moment, ..Limits::default() };
    let role = Role::Dial { peer: peer(1), addr };
    let (node, mut node_in) = Network::start(seed(2), role, limits).await.unwrap();
    until(&node, peer(1), true).await;
    until(&coordinator, peer(2), true).await;

    freeze.send_replace(());
    until(&node, peer(1), false).await;
    assert!(coordinator.connected().borrow().contains(&peer(2)), "the coordinator has not noticed");
    until(&node, peer(1), true).await;
    coordinator.open_control(peer(2)).await.unwrap();
    assert_eq!(node_in.control.next().await.unwrap().0, peer(1));
}

#[tokio::test]
async fn no_stream_of_a_burst_is_lost() {
    let (coordinator, mut incoming, _roster) = listen(TCP, &[peer(2)]).await;
    let (node, _node_in) = dial(2, &coordinator).await;
    until(&node, peer(1), true).await;
    let opened = futures::future::join_all((0..40).map(|_| node.open_control(peer(1)))).await;
    let opened: Vec<_> = opened.into_iter().collect::<Result<_, _>>().unwrap();
    for _ in &opened {
        incoming.control.next().await.unwrap();
    }
}

#[tokio::test]
async fn a_protocol_that_nobody_takes_is_refused() {
    let (coordinator, incoming, _roster) = listen(TCP, &[peer(2)]).await;
    drop(incoming);
    tokio::task::yield_now().await;
    let (node, _node_in) = dial(2, &coordinator).await;
    until(&node, peer(1), true).await;
    let refused = node.open_control(peer(1)).await;
    assert!(matches!(refused, Err(TransportError::Unsupported { .. })), "{refused:?}");
}

#[tokio::test]
async fn a_port_that_stays_in_use_is_named_as_the_cause() {
    let (coordinator, _incoming, _roster) = listen(QUIC, &[]).await;
    let (_roster, allowed) = watch::channel(BTreeSet::new());
    let role = Role::Listen { addrs: coordinator.listen_addrs(), allowed };
    let refused = Network::start(seed(3), role, Limits::default()).await.err();
    let Some(TransportError::Listen(error)) = refused else { panic!("{refused:?}") };
    assert!(error.to_string().contains("in use"), "{error}");
}

#[tokio::test]
async fn limits_and_addresses_out_of_range_are_refused() {
    let (_roster, allowed) = watch::channel(BTreeSet::new());
    let role = |addr: &str| Role::Listen { addrs: vec![addr.parse().unwrap()], allowed: allowed.clone() };
    let limits = Limits { max_streams_per_connection: 4096, ..Limits::default() };
    let refused = Network::start(seed(1), role(TCP), limits).await.err();
    assert!(matches!(refused, Some(TransportError::Limit { value: 4096, .. })));
    let refused = Network::start(seed(1), role("/ip4/127.0.0.1/udp/0"), Limits::default()).await;
    assert!(matches!(refused.err(), Some(TransportError::Address { .. })));
    let refused = Network::start(seed(1), role("/ip4/192.0.2.1/tcp/0"), Limits::default()).await;
    assert!(matches!(refused.err(), Some(TransportError::Listen(_))));
}

/// Answers every request with the id of its sender.
#[derive(Clone)]
struct WhoAmI;

impl NamedService for WhoAmI {
    const NAME: &'static str = "test.WhoAmI";
}

impl tower::Service<Request<Body>> for WhoAmI {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Infallible>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let from = request.extensions().get::<PeerInfo>().unwrap().peer();
        let response = Response::builder().header("x-peer", from.to_string());
        std::future::ready(Ok(response.body(Body::empty()).unwrap()))
    }
}

#[tokio::test]
async fn grpc_runs_over_a_stream_knows_its_caller_and_survives_a_reconnect() {
    let (coordinator, _coordinator_in, roster) = listen(TCP, &[peer(2)]).await;
    let (node, node_in) = dial(2, &coordinator).await;
    let server = server_builder().add_service(WhoAmI).serve_with_incoming(node_in.flight);
    let server = tokio::spawn(server);
    let ask = async || {
        let request = Request::post("http://any/test.WhoAmI/Ask").body(Body::empty()).unwrap();
        coordinator.flight_channel(peer(2)).oneshot(request).await
    };

    until(&coordinator, peer(2), true).await;
    let answer = ask().await.unwrap();
    assert_eq!(answer.headers()["x-peer"], peer(1).to_string());

    roster.send_replace(BTreeSet::new());
    until(&coordinator, peer(2), false).await;
    ask().await.unwrap_err();

    roster.send_replace(BTreeSet::from([peer(2)]));
    until(&coordinator, peer(2), true).await;
    let answer = ask().await.unwrap();
    assert_eq!(answer.headers()["x-peer"], peer(1).to_string());

    node.shutdown().await;
    tokio::time::timeout(SOON, server).await.expect("the server ends with its network").unwrap().unwrap();
}
