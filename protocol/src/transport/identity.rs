//! From Ed25519 key bytes to the peer id that libp2p proves in its handshake.
//!
//! Key *bytes* are exchanged with the rest of the project, never types: libp2p and our signatures use
//! different major versions of ed25519-dalek.

use libp2p::PeerId;
use libp2p::identity::{Keypair, PublicKey, ed25519};
use zeroize::Zeroizing;

use super::TransportError;

/// The peer id of the party whose transport key has this 32-byte seed.
///
/// # Errors
/// [`TransportError::Key`] when the bytes are no key (no 32-byte seed is refused today).
pub fn peer_id_of_seed(seed: &Zeroizing<[u8; 32]>) -> Result<PeerId, TransportError> {
    Ok(keypair(seed.clone())?.public().to_peer_id())
}

/// The peer id of the party with this 32-byte Ed25519 public key.
///
/// # Errors
/// [`TransportError::Key`] when the bytes are not a point of the curve.
pub fn peer_id_of_public_key(public_key: &[u8; 32]) -> Result<PeerId, TransportError> {
    let key = ed25519::PublicKey::try_from_bytes(public_key)?;
    Ok(PublicKey::from(key).to_peer_id())
}

pub(super) fn keypair(seed: Zeroizing<[u8; 32]>) -> Result<Keypair, TransportError> {
    Ok(Keypair::ed25519_from_bytes(seed)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_and_its_public_key_name_the_same_peer() {
        let seed = [42; 32];
        let public = ed25519_dalek::SigningKey::from_bytes(&seed).verifying_key().to_bytes();
        let peer = peer_id_of_seed(&Zeroizing::new(seed)).unwrap();
        assert_eq!(peer, peer_id_of_public_key(&public).unwrap());
        assert!(peer.to_string().starts_with("12D3KooW"));
    }
}
