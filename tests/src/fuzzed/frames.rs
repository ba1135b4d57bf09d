//! Control frames: an even first byte is what a node sends, an odd one what the coordinator sends.

use sekisho_protocol::{
    control::{self, FromCoordinator, FromNode},
    dsse::Envelope,
    log::{checkpoint::SignedCheckpoint, note::NoteSignature, proof::ConsistencyProof},
    record::WriteOff,
};
use serde::{Serialize, de::DeserializeOwned};

/// One input.
///
/// # Panics
/// When a message does not survive its frame.
pub fn run(input: &[u8]) {
    let Some((side, frame)) = input.split_first() else { return };
    if side % 2 == 0 {
        at_the_coordinator(frame);
    } else {
        at_the_node(frame);
    }
}

fn decoded<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(frame: &[u8]) -> Option<T> {
    let message = control::decode::<T>(frame).ok()?;
    // A number may have been written longer than it is; never shorter.
    let again = control::encode(&message).unwrap();
    assert!(again.len() <= frame.len());
    assert_eq!(control::decode::<T>(&again).unwrap(), message);
    Some(message)
}

fn at_the_coordinator(frame: &[u8]) {
    let Some(FromNode::Holdings(holdings)) = decoded(frame) else { return };
    let _ = holdings.permit_digests().count();
    if let Some(line) = &holdings.cosignature {
        let _ = line.parse::<NoteSignature>();
    }
    if let Some(succession) = &holdings.succession {
        let _ = Envelope::from_json::<WriteOff>(succession.write_off.as_bytes()).map(|e| e.peek::<WriteOff>());
        let _ = SignedCheckpoint::parse(succession.checkpoint.as_bytes());
    }
}

fn at_the_node(frame: &[u8]) {
    match decoded(frame) {
        Some(FromCoordinator::Welcome { newest: Some(newest), .. }) => {
            let _ = SignedCheckpoint::parse(newest.as_bytes());
        }
        Some(FromCoordinator::Ack { offer: Some(offer), .. }) => {
            let _ = ConsistencyProof::parse(offer.as_bytes());
        }
        Some(FromCoordinator::Welcome { newest: None, .. } | FromCoordinator::Ack { offer: None, .. }) | None => {}
    }
}
