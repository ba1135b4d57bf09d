//! Control frames: small messages on an authenticated link, in bincode.
//!
//! This is the only module that encodes bincode. Nothing signed or hashed passes through it. A frame is at
//! most [`MAX_FRAME`] bytes, decoding is limited to as much memory, the whole frame must be consumed, and
//! no type here is recursive or has elements of size zero.

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::digest::Digest;

/// The largest frame in bytes.
pub const MAX_FRAME: usize = 64 * 1024;
/// The most logs of other hospitals that a node tells of.
pub const MAX_OTHERS: usize = 64;
/// The version of these messages.
pub const VERSION: u16 = 4;

/// The Flight action by which the coordinator fetches a node's catalogue: the body is its number in decimal digits.
pub const ACTION_CATALOGUE: &str = "catalogue";
/// The Flight action by which the coordinator asks for the proof that a node's log of `NEW` entries continues the one of `OLD`:
/// the body is the two numbers in decimal digits with a space between, the answer the hashes, 32 bytes each.
pub const ACTION_CONSISTENCY: &str = "consistency";
/// The gRPC metadata key of a query that says how many entries of the node's log the coordinator has seen.
pub const LOG_SEEN_KEY: &str = "sekisho-log-seen";
/// The key of the node's checkpoint, with its consistency proof, in the metadata of a release's arrow schema.
pub const CHECKPOINT_KEY: &str = "sekisho.checkpoint";
/// The key of the proof that the release's receipt is in the node's log at that checkpoint (c2sp.org/tlog-proof).
pub const RECEIPT_PROOF_KEY: &str = "sekisho.receipt-proof";

/// What a node says first on its control stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The version of the control messages.
    pub version: u16,
    /// The node's name.
    pub name: String,
    /// The node's software.
    pub software: String,
}

/// What a node holds: it says so after the hello, and every few seconds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holdings {
    /// Grows with each message, so that an acknowledgement names what it answers.
    pub id: u64,
    /// How many rotations of the governance key it has seen.
    pub governance_seq: u64,
    /// The number of its newest committee, 0 for the pinned one.
    pub committee_seq: u64,
    /// The regulators that it obeys, each with the number of its newest orders, 0 for none.
    pub orders: Vec<(String, u64)>,
    /// The sequence number of its roster, 0 for none.
    pub roster_seq: u64,
    /// The sequence number of its status, 0 for none.
    pub status_seq: u64,
    /// The sequence number of its newest catalogue, 0 for none.
    pub catalogue_seq: u64,
    /// How many entries of the coordinator's log it has witnessed.
    pub witnessed: u64,
    /// Its cosignature on the checkpoint that was offered with the acknowledgement before, as a signature line.
    pub cosignature: Option<String>,
    /// The permits that it has answered, by digest.
    pub permits: Vec<[u8; 32]>,
    /// How many entries of other hospitals' logs it has witnessed, by the logs' names; at most [`MAX_OTHERS`].
    pub others: Vec<(String, u64)>,
    /// The log that goes on in the place of one that was lost, until the coordinator has taken it.
    pub succession: Option<Succession>,
}

/// A hospital's log that goes on in the place of one that it lost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Succession {
    /// The envelope of the signed write-off, as JSON.
    pub write_off: String,
    /// The newest checkpoint of the log that goes on, as it was signed.
    pub checkpoint: String,
}

/// What a node sends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromNode {
    /// First message.
    Hello(Hello),
    /// Every later one.
    Holdings(Holdings),
}

/// What the coordinator sends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromCoordinator {
    /// The hello was understood.
    Welcome {
        /// The version of the control messages.
        version: u16,
        /// The coordinator's software.
        software: String,
        /// The newest checkpoint of the node's own log that the coordinator has seen, as it was signed; none before the first.
        newest: Option<String>,
    },
    /// These holdings arrived.
    Ack {
        /// The id of the holdings.
        id: u64,
        /// A checkpoint of the coordinator's log, or of another hospital's, to be witnessed, with the proof from what the node has witnessed.
        offer: Option<String>,
    },
}

/// Why a frame is not understood.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// Larger than a frame may be.
    #[error("a control frame has at most {MAX_FRAME} bytes")]
    TooLarge,
    /// Not the message that was expected.
    #[error("not a control message")]
    Malformed,
    /// Bytes are left over.
    #[error("{0} bytes follow the control message")]
    Trailing(usize),
}

fn format() -> impl bincode::config::Config {
    bincode::config::standard().with_limit::<MAX_FRAME>()
}

/// Encodes a control message.
///
/// # Errors
/// When it is larger than a frame.
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, FrameError> {
    let bytes = bincode::serde::encode_to_vec(message, format()).map_err(|_| FrameError::Malformed)?;
    if bytes.len() > MAX_FRAME {
        return Err(FrameError::TooLarge);
    }
    Ok(bytes)
}

/// Decodes a control message that fills the whole frame.
///
/// # Errors
/// When the frame is too large, malformed, truncated, or longer than its message.
pub fn decode<T: DeserializeOwned>(frame: &[u8]) -> Result<T, FrameError> {
    if frame.len() > MAX_FRAME {
        return Err(FrameError::TooLarge);
    }
    let (message, read) = bincode::serde::decode_from_slice(frame, format()).map_err(|_| FrameError::Malformed)?;
    if read != frame.len() {
        return Err(FrameError::Trailing(frame.len() - read));
    }
    Ok(message)
}

impl Holdings {
    /// The permits as digests.
    pub fn permit_digests(&self) -> impl Iterator<Item = Digest> + '_ {
        self.permits.iter().map(|bytes| Digest::from_bytes(*bytes))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn holdings(permits: usize) -> FromNode {
        FromNode::Holdings(Holdings {
            id: 7,
            governance_seq: 1,
            committee_seq: 3,
            orders: vec![("ministry".into(), 4)],
            roster_seq: 1,
            status_seq: 2,
            witnessed: 6,
            cosignature: Some("line".into()),
            catalogue_seq: 3,
            permits: vec![[9; 32]; permits],
            others: vec![("sekisho-0/osaka".into(), 9)],
            succession: Some(Succession { write_off: "envelope".into(), checkpoint: "note".into() }),
        })
    }

    #[test]
    fn a_message_survives_its_frame() {
        let frame = encode(&holdings(3)).unwrap();
        assert_eq!(decode::<FromNode>(&frame).unwrap(), holdings(3));
    }

    #[test]
    fn truncated_trailing_and_oversized_frames_are_refused() {
        let frame = encode(&holdings(3)).unwrap();
        assert!(matches!(decode::<FromNode>(&frame[..frame.len() - 1]), Err(FrameError::Malformed)));
        let longer = [frame.as_slice(), &[0]].concat();
        assert!(matches!(decode::<FromNode>(&longer), Err(FrameError::Trailing(1))));
        assert!(matches!(decode::<FromNode>(&vec![0; MAX_FRAME + 1]), Err(FrameError::TooLarge)));
        assert!(matches!(encode(&holdings(4000)), Err(FrameError::Malformed | FrameError::TooLarge)));
    }

    #[test]
    fn a_frame_that_claims_a_huge_list_is_refused_without_allocating_it() {
        // Variant 1, id 0, two seqs 0, then a list length of 2^60.
        let frame = [1, 0, 0, 0, 253, 0, 0, 0, 0, 0, 0, 0, 16];
        assert!(matches!(decode::<FromNode>(&frame), Err(FrameError::Malformed)));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_decoder_panic(frame in prop::collection::vec(any::<u8>(), 0..512)) {
            let _ = decode::<FromNode>(&frame);
            let _ = decode::<FromCoordinator>(&frame);
        }
    }
}
