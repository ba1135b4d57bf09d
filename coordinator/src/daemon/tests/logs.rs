//! The log by role, and a hospital's log that goes on in the place of a lost one.

use sekisho_protocol::{
    access::{Access, Item},
    control::Succession,
    log::{
        checkpoint::{Checkpoint, SignedCheckpoint},
        merkle::TreeHead,
    },
    record::WriteOff,
};

use super::*;
use crate::report::LogReport;

impl World {
    async fn log(&self, item: Item, key: &SecretKey) -> Result<LogReport, Refusal> {
        let access = Access { item, issued: now(), expires: now() + Days::minutes(5) };
        let body = self.action("read", Envelope::sign(&access, &[key]).unwrap().to_json()).await?;
        Ok(serde_json::from_slice(&body).unwrap())
    }

    /// The kinds of the entries that the owner of `key` may open, and where they are.
    async fn listed(&self, key: &SecretKey) -> Result<Vec<(u64, Kind)>, Code> {
        match self.log(Item::LogEntries { from: 0, limit: 1000 }, key).await {
            Ok(LogReport::Entries { entries, .. }) => Ok(entries.iter().map(|e| (e.index, e.kind)).collect()),
            Ok(LogReport::Statement { .. }) => panic!("a statement"),
            Err(refusal) => Err(refusal.code),
        }
    }

    /// What the hospital hands over on a new control stream.
    async fn hand_over(&self, name: &str, succession: Succession) {
        let (transport, _) = &self.keys[name];
        let peer = self.daemon.nodes.local_peer();
        let role = transport::Role::Dial { peer, addr: self.daemon.listen_addrs()[0].clone() };
        let (network, _incoming) = Network::start(transport.seed(), role, Limits::default()).await.unwrap();
        until_connected(&network, peer).await;
        let mut io = network.open_control(peer).await.unwrap();
        let hello = Hello { version: control::VERSION, name: name.into(), software: "fake".into() };
        say(&mut io, &FromNode::Hello(hello)).await;
        assert!(matches!(hear(&mut io).await, FromCoordinator::Welcome { .. }));
        let holdings = Holdings { id: 1, succession: Some(succession), ..Holdings::default() };
        say(&mut io, &FromNode::Holdings(holdings)).await;
        assert!(matches!(hear(&mut io).await, FromCoordinator::Ack { id: 1, .. }));
    }
}

#[tokio::test]
async fn a_regulator_opens_every_statement_a_person_their_own_and_nobody_else_any() {
    let other = key();
    let mut w = World::with_permit(&[Mode::Answers], |permit, _| {
        let mut second = permit.authorised_persons[0].clone();
        (second.id, second.key, second.key_fingerprint) = ("p9".into(), other.public(), other.public().fingerprint());
        permit.authorised_persons.push(second);
    })
    .await;
    w.connect("h0").await;
    w.ask(&w.query(SQL)).await.unwrap();
    let all = w.listed(&ministry()).await.unwrap();
    let kinds: Vec<_> = all.iter().map(|(_, kind)| *kind).collect();
    for kind in [Kind::Roster, Kind::Status, Kind::Permit, Kind::Query, Kind::Receipt, Kind::Checkpoint] {
        assert!(kinds.contains(&kind), "{kinds:?}");
    }
    let own: Vec<_> = all.iter().copied().filter(|(_, kind)| matches!(kind, Kind::Query | Kind::Receipt)).collect();
    assert_eq!(w.listed(&w.person).await, Ok(own.clone()));
    assert_eq!(w.listed(&other).await, Ok(Vec::new()), "another person of the permit asked nothing");
    for (key, who) in [(&w.committee, "a member"), (&key(), "a stranger"), (&w.governance, "the access body")] {
        assert_eq!(w.listed(key).await, Err(Code::NotAuthorised), "{who}");
    }
    for (index, kind) in all {
        let opened = |report: Result<LogReport, Refusal>| match report {
            Ok(LogReport::Statement { kind, statement, .. }) => Ok((kind, statement)),
            Ok(LogReport::Entries { .. }) => panic!("entries"),
            Err(refusal) => Err(refusal.code),
        };
        let item = || Item::LogStatement { index };
        let (told, statement) = opened(w.log(item(), &ministry()).await).unwrap();
        assert_eq!(told, kind);
        let stored = w.daemon.store.log_entries(index, 1).await.unwrap().remove(0).opened.unwrap().statement;
        assert_eq!(statement.into_bytes(), stored);
        let expect = own.contains(&(index, kind)).then_some(kind).ok_or(Code::NotAuthorised);
        assert_eq!(opened(w.log(item(), &w.person).await).map(|(kind, _)| kind), expect, "{kind}");
        assert_eq!(opened(w.log(item(), &other).await).map(|(kind, _)| kind), Err(Code::NotAuthorised));
    }
    let beyond = w.log(Item::LogStatement { index: 10_000 }, &ministry()).await.unwrap_err();
    assert_eq!(beyond.code, Code::NotAuthorised);
}

#[tokio::test]
async fn a_hospitals_next_log_is_taken_only_with_its_signed_word_on_the_one_it_lost() {
    let mut w = World::with_documents(&[Mode::Answers, Mode::Answers]).await;
    for name in ["h0", "h1"] {
        w.connect(name).await;
    }
    w.ask(&w.query(SQL)).await.unwrap();
    let store = w.daemon.store.clone();
    let lost = store.newest_checkpoint("h0").await.unwrap().unwrap();
    let (signing, stranger) = (w.keys["h0"].1.clone(), key());
    let note = |origin: &str, size: u64, key: &SecretKey| {
        let head = TreeHead::new(size, Digest::of(b"another")).unwrap();
        SignedCheckpoint::sign(Checkpoint::new(origin.parse().unwrap(), head), key).unwrap().to_string()
    };
    let written = WriteOff {
        node: "h0".into(),
        lost: lost.to_string(),
        log: "sekisho-test/h0/2".into(),
        kept: 4,
        studies: Vec::new(),
        register_restored: true,
        by: "sato".into(),
        reason: "the disk failed".into(),
        at: now(),
    };
    let write_off = |change: fn(&mut WriteOff), key: &SecretKey| {
        let mut written = written.clone();
        change(&mut written);
        String::from_utf8(Envelope::sign(&written, &[key]).unwrap().to_json()).unwrap()
    };
    let same = |_: &mut WriteOff| {};
    let good = note("sekisho-test/h0/2", 6, &signing);
    let older = WriteOff { lost: note("sekisho-test/h0", 3, &signing), ..written.clone() };
    let older = String::from_utf8(Envelope::sign(&older, &[&signing]).unwrap().to_json()).unwrap();
    for (fact, write_off, checkpoint) in [
        ("signed by a stranger", write_off(same, &stranger), good.clone()),
        ("signed by another hospital", write_off(same, &w.keys["h1"].1), good.clone()),
        ("no envelope", "{}".into(), good.clone()),
        ("of an older checkpoint than was seen", older, good.clone()),
        ("with no more entries than were kept", write_off(|w| w.kept = 6, &signing), good.clone()),
        ("with a checkpoint of the lost log", write_off(same, &signing), note("sekisho-test/h0", 20, &signing)),
        ("with a checkpoint of a log later still", write_off(same, &signing), note("sekisho-test/h0/3", 6, &signing)),
        (
            "with a checkpoint that a stranger signed",
            write_off(same, &signing),
            note("sekisho-test/h0/2", 6, &stranger),
        ),
    ] {
        w.hand_over("h0", Succession { write_off, checkpoint }).await;
        assert_eq!(store.newest_checkpoint("h0").await.unwrap().as_ref(), Some(&lost), "{fact}");
    }
    assert!(store.log_entries_of(Kind::WriteOff, 0, 9).await.unwrap().is_empty());
    for _ in 0..2 {
        let succession = Succession { write_off: write_off(same, &signing), checkpoint: good.clone() };
        w.hand_over("h0", succession).await;
        assert_eq!(store.newest_checkpoint("h0").await.unwrap().unwrap().to_string(), good);
        assert_eq!(store.log_entries_of(Kind::WriteOff, 0, 9).await.unwrap().len(), 1, "once");
    }
    let notes: Vec<_> = store.log_entries_of(Kind::Checkpoint, 0, 99).await.unwrap();
    let notes: Vec<_> =
        notes.into_iter().map(|leaf| String::from_utf8(leaf.opened.unwrap().statement).unwrap()).collect();
    assert!(notes.contains(&lost.to_string()) && notes.contains(&good), "neither is forgotten: {notes:?}");
    w.connect("h0").await;
    // Who goes on showing the lost log is not believed. The connection is a new one: the first answer may still break with the old.
    let mut code = None;
    for _ in 0..20 {
        let (report, _) = w.ask(&w.query(SQL)).await.map_err(|refusal| refusal.to_string()).unwrap();
        code = report.holders[0].code;
        if code != Some(Code::Offline) {
            break;
        }
    }
    assert_eq!(code, Some(Code::LedgerForked));
}
