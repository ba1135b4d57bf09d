//! What crosses the wire: QUIC, the roster at the connection, hostile frames, and the door's limits.

use std::{collections::BTreeSet, time::Duration};

use arrow_flight::{Ticket, flight_service_client::FlightServiceClient};
use sekisho_protocol::{
    control::{self, FromCoordinator, FromNode, Hello},
    key_file,
    keys::SecretKey,
    refusal::Code,
    roster::Member,
    transport::{self, Limits, Multiaddr, Network as Transport, P2pIo, PeerId, Role, read_frame, write_frame},
};
use sekisho_sim::network::{Network, Setup, Site};
use sekisho_tests::{COLUMNS, PermitText, SCHEMA, mapping, permit_toml, stays};
use tokio::io::AsyncWriteExt;

const RHO: u64 = 1_000_000;
const SQL: &str = "SELECT count(*) AS n FROM stay";
const WITHIN: Duration = Duration::from_secs(5);

fn network(dir: &std::path::Path, quic: bool) -> (Network, String) {
    let csv = dir.join("stay.csv");
    stays(&csv, &(0..200).map(|i| (i, "female", 50, 3)).collect::<Vec<_>>());
    let name = "hospital-1".to_string();
    let setup = Setup {
        quic,
        budget: Some((100 * RHO, RHO)),
        ..Setup::new(dir.join("network"), vec![Site::new(&name, mapping(&name, &csv, true))], SCHEMA)
    };
    let network = Network::build(&setup, crate::launcher(), &|_| {}).unwrap();
    let text = PermitText {
        study: "wire",
        schema: &network.dir().join("schema.dsse.json"),
        researcher: &network.public_key("researcher").unwrap(),
        table: ("stay", &COLUMNS),
        holders: &[name],
        bounds: (5, 2),
        micro_rho: (RHO, 20 * RHO),
    };
    let permit = network.permit("permit", &permit_toml(&text, crate::now())).unwrap();
    (network, permit)
}

fn answered(network: &Network, permit: &str, run: &str) -> bool {
    let key = network.key("researcher");
    let args = ["query", "--permit", permit, "--sql", SQL, "--key", &key, "--run", run, "--output", "csv"];
    network.ask(&args).unwrap().status.success()
}

#[test]
fn a_node_connects_and_answers_over_quic() {
    let dir = tempfile::tempdir().unwrap();
    let (network, permit) = network(dir.path(), true);
    assert!(answered(&network, &permit, "1"));
}

/// The coordinator's address and peer id, as the node's configuration has them.
fn coordinator(network: &Network) -> (PeerId, Multiaddr) {
    let member = std::fs::read(network.dir().join("coordinator/member.json")).unwrap();
    let member: Member = serde_json::from_slice(&member).unwrap();
    let config = std::fs::read_to_string(network.node_file("hospital-1", "node.toml")).unwrap();
    let line = config.lines().find(|l| l.starts_with("address")).unwrap();
    (member.peer_id.parse().unwrap(), line.split('"').nth(1).unwrap().parse().unwrap())
}

async fn dial(key: &SecretKey, network: &Network) -> (Transport, transport::Incoming, PeerId) {
    let (peer, addr) = coordinator(network);
    let (transport, incoming) =
        Transport::start(key.seed(), Role::Dial { peer, addr }, Limits::default()).await.unwrap();
    (transport, incoming, peer)
}

/// Opens a control stream and says hello; whether the coordinator welcomes it.
async fn welcomed(transport: &Transport, coordinator: PeerId) -> Option<P2pIo> {
    let mut connected = transport.connected();
    let there = connected.wait_for(|peers: &BTreeSet<PeerId>| peers.contains(&coordinator));
    tokio::time::timeout(WITHIN, there).await.ok()?.ok()?;
    let mut stream = transport.open_control(coordinator).await.ok()?;
    let hello =
        FromNode::Hello(Hello { version: control::VERSION, name: "hospital-1".into(), software: "test".into() });
    write_frame(&mut stream, &control::encode(&hello).unwrap(), WITHIN).await.ok()?;
    let frame = read_frame(&mut stream, WITHIN).await.ok()?;
    matches!(control::decode(&frame), Ok(FromCoordinator::Welcome { .. })).then_some(stream)
}

#[tokio::test(flavor = "multi_thread")]
async fn only_members_stay_and_hostile_frames_harm_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (mut network, permit) = network(dir.path(), false);

    // A peer that is not on the roster is dropped at the connection.
    let (stranger, _incoming, peer) = dial(&SecretKey::generate(&mut rand::rng()), &network).await;
    assert!(welcomed(&stranger, peer).await.is_none());
    stranger.shutdown().await;

    // A member that was taken over sends garbage; each stream is dropped, and the coordinator goes on.
    network.kill_node("hospital-1");
    let key = key_file::read(network.node_file("hospital-1", "keys/transport.pem").as_ref()).unwrap();
    let (member, _incoming, peer) = dial(&key, &network).await;
    let truncated = &control::encode(&FromNode::Holdings(control::Holdings::default())).unwrap()[..2];
    let trailing = [control::encode(&FromNode::Holdings(control::Holdings::default())).unwrap(), vec![0]].concat();
    let hostile: [(&str, Vec<u8>); 4] = [
        ("oversized", (u32::MAX).to_be_bytes().to_vec()),
        ("truncated", [&2_u32.to_be_bytes()[..], truncated].concat()),
        ("trailing", [&u32::try_from(trailing.len()).unwrap().to_be_bytes()[..], &trailing].concat()),
        ("garbage", [&64_u32.to_be_bytes()[..], &[0xff; 64]].concat()),
    ];
    for (name, bytes) in hostile {
        let mut stream = welcomed(&member, peer).await.unwrap_or_else(|| panic!("a member is welcome, before {name}"));
        stream.write_all(&bytes).await.unwrap();
        stream.flush().await.unwrap();
        assert!(read_frame(&mut stream, WITHIN).await.is_err(), "{name}: the coordinator answered");
    }
    member.shutdown().await;
    network.start_node("hospital-1").unwrap();
    network.wait_connected(1).unwrap();
    assert!(answered(&network, &permit, "1"));

    // A removed member is disconnected, by one command.
    let governance = network.key("governance");
    network.sekisho(&["roster", "remove", "hospital-1", "--key", &governance]).unwrap();
    assert!(!answered(&network, &permit, "2"));
    let (member, _incoming, peer) = dial(&key, &network).await;
    assert!(welcomed(&member, peer).await.is_none());
    member.shutdown().await;
    // And added again, by one command: the node finds its way back by itself.
    let file = network.node_file("hospital-1", "member.json");
    network.sekisho(&["roster", "add", &file, "--key", &governance]).unwrap();
    network.wait_connected(1).unwrap();
    assert!(answered(&network, &permit, "3"));

    // A revocation is one command, and acts on the next query.
    network.sekisho(&["permit", "revoke", &permit, "--reason", "a test", "--key", &governance]).unwrap();
    assert!(!answered(&network, &permit, "4"));
    at_the_door(&network).await;
}

/// Ten megabytes and nonsense at the door get a code, and harm nothing.
async fn at_the_door(network: &Network) {
    let channel = tonic::transport::Endpoint::new(network.door().to_string()).unwrap().connect().await.unwrap();
    let mut door = FlightServiceClient::new(channel);
    for (ticket, code) in [(vec![b'x'; 10 << 20], Code::TooLarge), (b"{}".to_vec(), Code::Malformed)] {
        let status = door.do_get(Ticket { ticket: ticket.into() }).await.map(|_| ()).unwrap_err();
        assert_eq!(transport::refusal_of(&status).code, code);
    }
}
