//! Every decoder of signed documents, of log entries and of what proves them: the first byte says which.
//!
//! With its highest bit set, the rest is an envelope; otherwise it is the payload of one, signed by a key that counts, so that
//! signatures do not keep anything from what reads the document behind them.

use std::{fmt::Display, num::NonZeroUsize, str::FromStr, sync::OnceLock};

use rand::{SeedableRng, rngs::StdRng};
use sekisho_protocol::{
    access::Access,
    alert::Alert,
    application::Application,
    catalogue::Catalogue,
    committee::{Committee, CommitteeMember},
    decision::RefusedApplication,
    digest::Digest,
    dsse::{Document, Envelope},
    governance::Governance,
    keys::{PublicKey, SecretKey},
    log::{
        checkpoint::SignedCheckpoint,
        entry::{Entry, Kind, Opening, Salt},
        merkle::TreeHead,
        note::{KeyName, Note, NoteKey, NoteSignature},
        policy::Policy,
        proof::{ConsistencyProof, InclusionProof},
        statements::{Anchors, Statements},
        tile::{Tile, unbundle},
    },
    orders::Orders,
    output_review::OutputReview,
    permit::Permit,
    publication::Publication,
    published::PublishedRelease,
    query::{Query, Route, RoutedQuery},
    receipt::{Acceptance, Receipt, ReservationRecord},
    record::{PolicyRecord, RefusalRecord, WriteOff},
    refusal::Refusal,
    replay::Replay,
    review::Review,
    roster::Roster,
    schema::Schema,
    status::Status,
};

type Decoder = fn(&[u8], bool);

/// One for each kind of document, in alphabetical order, then the others.
pub const DECODERS: &[(&str, Decoder)] = &[
    ("acceptance", document::<Acceptance>),
    ("access", document::<Access>),
    ("alert", document::<Alert>),
    ("application", document::<Application>),
    ("catalogue", document::<Catalogue>),
    ("committee", document::<Committee>),
    ("governance", document::<Governance>),
    ("orders", document::<Orders>),
    ("output_review", document::<OutputReview>),
    ("permit", document::<Permit>),
    ("policy_record", document::<PolicyRecord>),
    ("publication", document::<Publication>),
    ("query", document::<Query>),
    ("receipt", document::<Receipt>),
    ("refusal_record", document::<RefusalRecord>),
    ("refused_application", document::<RefusedApplication>),
    ("release", document::<PublishedRelease>),
    ("replay", document::<Replay>),
    ("reservation", document::<ReservationRecord>),
    ("review", document::<Review>),
    ("roster", document::<Roster>),
    ("route", document::<Route>),
    ("schema", document::<Schema>),
    ("status", document::<Status>),
    ("write_off", document::<WriteOff>),
    ("routed_query", routed),
    ("refusal", refusal),
    ("statements", statements),
    ("note", note),
    ("inclusion", inclusion),
    ("consistency", consistency),
    ("log_policy", log_policy),
    ("entries", entries),
    ("names", names),
];

/// One input.
///
/// # Panics
/// When what was accepted does not hold.
pub fn run(input: &[u8]) {
    let Some((choice, rest)) = input.split_first() else { return };
    let (_, decoder) = DECODERS[usize::from(choice & 0x7f) % DECODERS.len()];
    decoder(rest, choice & 0x80 != 0);
}

/// The key that counts.
fn key() -> &'static SecretKey {
    static KEY: OnceLock<SecretKey> = OnceLock::new();
    KEY.get_or_init(|| SecretKey::generate(&mut StdRng::seed_from_u64(6)))
}

/// An envelope of any payload, signed by the key that counts.
fn signed<D: Document>(payload: &[u8]) -> Vec<u8> {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let kind = D::PAYLOAD_TYPE;
    let mut message = format!("DSSEv1 {} {kind} {} ", kind.len(), payload.len()).into_bytes();
    message.extend_from_slice(payload);
    let signature = serde_json::json!({
        "keyid": key().public().fingerprint(),
        "sig": STANDARD.encode(key().sign(&message)),
    });
    let envelope = serde_json::json!({
        "payloadType": kind, "payload": STANDARD.encode(payload), "signatures": [signature],
    });
    serde_json::to_vec(&envelope).unwrap()
}

fn document<D: Document>(rest: &[u8], raw: bool) {
    let bytes = if raw { rest.to_vec() } else { signed::<D>(rest) };
    let Ok(envelope) = Envelope::from_json::<D>(&bytes) else { return };
    let _ = (envelope.digest::<D>(), envelope.key_ids().count());
    let peeked = envelope.peek::<D>();
    let verified = envelope.verify::<D>(&[key().public()], 1);
    let Ok((document, digest)) = peeked else {
        assert!(verified.is_err(), "a {} that is none is verified", D::NAME);
        return;
    };
    if let Ok(verified) = &verified {
        assert_eq!((verified.digest(), verified.signers()), (digest, &[key().public().fingerprint()][..]));
    }
    assert!(raw || verified.is_ok(), "a signed {} is not verified", D::NAME);
    // What was understood says the same when it is signed anew; it may have grown beyond its limit.
    if let Ok(again) = Envelope::sign(&document, &[key()]) {
        let (again, _) = again.peek::<D>().unwrap();
        assert_eq!(serde_json::to_value(&document).unwrap(), serde_json::to_value(&again).unwrap());
    }
}

fn routed(rest: &[u8], _: bool) {
    let Some(Ok(routed)) = (rest.len() <= RoutedQuery::MAX_BYTES).then(|| serde_json::from_slice::<RoutedQuery>(rest))
    else {
        return;
    };
    let _ = (routed.query.peek::<Query>(), routed.route.peek::<Route>());
    let _ = (routed.query.verify::<Query>(&[key().public()], 1), routed.route.verify::<Route>(&[key().public()], 1));
}

fn refusal(rest: &[u8], _: bool) {
    if let Ok(refusal) = serde_json::from_slice::<Refusal>(rest) {
        let _ = (refusal.to_string(), serde_json::to_vec(&refusal).unwrap());
    }
}

/// One statement of a log, of any kind, after which the log is looked at again.
fn statements(rest: &[u8], raw: bool) {
    let Some((kind, rest)) = rest.split_first() else { return };
    let kind = Kind::ALL[usize::from(*kind) % Kind::ALL.len()];
    let bytes = if raw { rest.to_vec() } else { of_kind(kind, rest) };
    let member = CommitteeMember { name: "a".into(), role: "a".into(), key: key().public() };
    let mut statements = Statements::new(Anchors {
        governance: vec![key().public()],
        committee: Committee::pinned(1, Vec::new(), false, vec![member]).unwrap(),
        regulators: Vec::new(),
        own: ("h".into(), vec![key().public()]),
    });
    for index in 0..2 {
        let _ = statements.next(&[(index, kind, &bytes)], NonZeroUsize::MIN);
    }
    statements.found().in_words();
}

/// The payload in the envelope of its kind; a checkpoint has none.
fn of_kind(kind: Kind, payload: &[u8]) -> Vec<u8> {
    match kind {
        Kind::Roster => signed::<Roster>(payload),
        Kind::Status => signed::<Status>(payload),
        Kind::Committee => signed::<Committee>(payload),
        Kind::Governance => signed::<Governance>(payload),
        Kind::Orders => signed::<Orders>(payload),
        Kind::Catalogue => signed::<Catalogue>(payload),
        Kind::Application => signed::<Application>(payload),
        Kind::Review => signed::<Review>(payload),
        Kind::Decision => signed::<RefusedApplication>(payload),
        Kind::Permit => signed::<Permit>(payload),
        Kind::Acceptance => signed::<Acceptance>(payload),
        Kind::Query => signed::<Query>(payload),
        Kind::Reservation => signed::<ReservationRecord>(payload),
        Kind::Receipt => signed::<Receipt>(payload),
        Kind::Refusal => signed::<RefusalRecord>(payload),
        Kind::OutputReview => signed::<OutputReview>(payload),
        Kind::Release => signed::<PublishedRelease>(payload),
        Kind::Policy => signed::<PolicyRecord>(payload),
        Kind::Replay => signed::<Replay>(payload),
        Kind::Alert => signed::<Alert>(payload),
        Kind::Checkpoint => payload.to_vec(),
        Kind::Schema => signed::<Schema>(payload),
        Kind::Publication => signed::<Publication>(payload),
        Kind::WriteOff => signed::<WriteOff>(payload),
    }
}

/// What parses is written back byte for byte.
fn same(bytes: &[u8], parsed: &impl Display) {
    assert_eq!(parsed.to_string().as_bytes(), bytes, "is written back otherwise");
}

fn note(rest: &[u8], _: bool) {
    if let Ok(note) = Note::parse(rest) {
        same(rest, &note);
    }
    let Ok(checkpoint) = SignedCheckpoint::parse(rest) else { return };
    same(rest, &checkpoint);
    let origin = checkpoint.claimed().origin().clone();
    let ours = NoteKey::new(origin, sekisho_protocol::log::note::Signs::Text, key().public());
    assert!(checkpoint.verify(&ours).is_err(), "nobody has our key");
    let signed = SignedCheckpoint::sign(checkpoint.claimed().clone(), key()).unwrap();
    assert_eq!(&*signed.verify(&ours).unwrap(), checkpoint.claimed());
}

/// A policy that trusts nobody who is met here, as its file has it.
fn policy() -> &'static Policy {
    static POLICY: OnceLock<Policy> = OnceLock::new();
    POLICY.get_or_init(|| Policy::parse(include_bytes!("../../../protocol/testdata/log/policy.txt")).unwrap())
}

fn inclusion(rest: &[u8], _: bool) {
    let Ok(proof) = InclusionProof::parse(rest) else { return };
    same(rest, &proof);
    let opening = proof.opening().unwrap_or(Opening { salt: Salt::from_bytes([0; 32]), kind: Kind::Receipt });
    let entry = Entry::of(opening, rest);
    let key = NoteKey::new(
        proof.checkpoint().claimed().origin().clone(),
        sekisho_protocol::log::note::Signs::Text,
        key().public(),
    );
    let signed = SignedCheckpoint::sign(proof.checkpoint().claimed().clone(), self::key()).unwrap();
    let _ = proof.under(&entry, &signed.verify(&key).unwrap());
    let _ = proof.verify(entry, policy());
}

fn consistency(rest: &[u8], _: bool) {
    let Ok(proof) = ConsistencyProof::parse(rest) else { return };
    same(rest, &proof);
    let head = proof.checkpoint.claimed().head();
    for root in [Digest::of(rest), head.root()] {
        if let Some(old) = TreeHead::new(proof.old, root) {
            let _ = head.extends(&old, &proof.hashes);
        }
    }
}

fn log_policy(rest: &[u8], _: bool) {
    if let Ok(policy) = Policy::parse(rest) {
        let checkpoint = include_bytes!("../../../protocol/testdata/log/checkpoint-200.txt");
        let _ = policy.check(&SignedCheckpoint::parse(checkpoint).unwrap());
    }
}

/// A tile's entries, and what opens one.
fn entries(rest: &[u8], _: bool) {
    let _ = Opening::from_bytes(rest);
    if let Some((width, bytes)) = rest.split_first()
        && let Some(all) = unbundle(bytes, u16::from(*width) + 1)
    {
        assert_eq!(sekisho_protocol::log::tile::bundle(&all).unwrap(), bytes);
    }
}

/// What is written as one word.
fn names(rest: &[u8], _: bool) {
    let Ok(text) = std::str::from_utf8(rest) else { return };
    fn word<T: FromStr + Display>(text: &str) -> Option<T> {
        let parsed = text.parse::<T>().ok()?;
        same(text.as_bytes(), &parsed);
        Some(parsed)
    }
    let _ = (word::<KeyName>(text), word::<NoteKey>(text), word::<NoteSignature>(text), word::<Tile>(text));
    let _ = (word::<Kind>(text), text.parse::<Digest>(), text.parse::<PublicKey>());
}
