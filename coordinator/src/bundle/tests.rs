//! Bundles of small networks: whole ones verify, and whatever is changed is named.

pub(crate) mod memory_log;
pub(crate) mod net;
mod tampered;
mod vector;
mod ways;

use std::{collections::BTreeMap, time::Duration};

use chrono::TimeDelta;
use sekisho_protocol::{
    access::{Access, Item},
    digest::Digest,
    log::entry::Kind,
    output_review::Verdict,
    refusal::Code,
};

use self::net::{Net, SQL, Shape, key, signed};
use super::{
    Asker, archive, list, make_within, state_earlier,
    trust::Trust,
    verify::{Report, verify},
};
use crate::documents::tests::now;

type Files = BTreeMap<String, Vec<u8>>;

const OTHER_SQL: &str = "SELECT count(*) AS n FROM person";

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn checked(files: &Files, trust: &Trust) -> Report {
    runtime().block_on(verify(files, trust))
}

/// A network of this shape, a result of it, and its bundle.
fn made(shape: Shape) -> (Net, Digest, Files) {
    runtime().block_on(async {
        let mut net = Net::new(shape).await;
        let result = net.ask(SQL, 1).await;
        if shape.two_person {
            for reviewer in ["ito", "mori"] {
                net.review(result, reviewer, Verdict::Release).await;
            }
        }
        net.witness().await;
        let files = net.bundle(result).await.files().clone();
        (net, result, files)
    })
}

const THREE: Shape = Shape { hospitals: 3, missing: false, two_person: false, history: false, exact: false };

#[test]
fn a_whole_bundle_verifies_whatever_the_network() {
    for shape in [
        Shape { hospitals: 1, ..THREE },
        THREE,
        Shape { missing: true, ..THREE },
        Shape { two_person: true, ..THREE },
        Shape { history: true, ..THREE },
        Shape { missing: true, two_person: true, history: true, ..THREE },
        Shape { exact: true, ..THREE },
        Shape { exact: true, missing: true, two_person: true, ..THREE },
    ] {
        let (net, result, files) = made(shape);
        let report = checked(&files, &net.trust());
        assert!(report.verified, "{:#?}", report.checks);
        assert_eq!(report.result, Some(result));
        let as_of = report.as_of.unwrap();
        assert_eq!(as_of.witnesses.len(), net.names.len());
        let again = runtime().block_on(net.bundle(result));
        assert_eq!(*again.files(), files, "the same database gives the same bytes");
        assert_eq!(archive::unzip(&again.zip().unwrap()).unwrap(), files);
    }
}

impl Net {
    /// By which code no bundle is made at once.
    async fn refused(&self, result: Digest) -> Option<Code> {
        make_within(&self.documents, &self.store, result, Duration::ZERO).await.err().map(|refusal| refusal.code)
    }
}

#[tokio::test]
async fn a_bundle_is_made_when_the_result_may_leave_and_its_log_is_witnessed() {
    let mut net = Net::new(Shape { two_person: true, ..THREE }).await;
    assert_eq!(net.refused(Digest::of(b"?")).await, Some(Code::ResultUnknown));
    let [first, second] = [net.ask(SQL, 1).await, net.ask(SQL, 2).await];
    net.witness().await;
    assert_eq!(net.refused(first).await, Some(Code::AwaitingReview));
    net.review(first, "sato", Verdict::Release).await;
    assert_eq!(net.refused(first).await, Some(Code::AwaitingReview), "one is not enough");
    net.review(first, "ito", Verdict::Release).await;
    assert_eq!(net.refused(first).await, Some(Code::NotWitnessed), "the reviews are not in the witnessed log");
    net.witness().await;
    assert_eq!(net.refused(first).await, None);
    net.review(second, "mori", Verdict::Refuse).await;
    net.witness().await;
    assert_eq!(net.refused(second).await, Some(Code::OutputRefused));
}

#[tokio::test]
async fn a_result_is_stated_once_and_those_of_earlier_rounds_at_the_next_start() {
    let mut net = Net::new(THREE).await;
    net.unstated = true;
    let [first, again] = [net.ask(SQL, 1).await, net.ask(SQL, 1).await];
    assert_eq!(first, again, "the same releases are the same result");
    assert_eq!(net.refused(first).await, Some(Code::ResultUnknown));
    for _ in 0..2 {
        state_earlier(&net.documents, &net.store, &[key("coordinator")]).await.unwrap();
    }
    net.unstated = false;
    net.ask(SQL, 1).await;
    net.witness().await;
    let entries = net.store.log_entries(0, 999).await.unwrap();
    assert_eq!(entries.iter().filter(|entry| entry.kind == Kind::Release).count(), 1);
    let report = verify(net.bundle(first).await.files(), &net.trust()).await;
    assert!(report.verified, "{:#?}", report.checks);
}

#[tokio::test]
async fn a_bundle_is_for_the_persons_of_its_permit_the_committee_and_regulators() {
    let mut net = Net::new(THREE).await;
    let result = net.ask(SQL, 1).await;
    net.permit_of("bob").await;
    let request = |signer: &str, ago: TimeDelta| {
        let issued = now() - ago;
        signed(&Access { item: Item::Release { result }, issued, expires: issued + TimeDelta::minutes(5) }, &[signer])
    };
    for (signer, ago, expect) in [
        ("ada", 0, Ok(1)),
        ("sato", 0, Ok(1)),
        ("inspector", 0, Ok(1)),
        ("bob", 0, Err(Code::ResultUnknown)),
        ("stranger", 0, Err(Code::NotAuthorised)),
        ("hospital-0", 0, Err(Code::NotAuthorised)),
        ("ada", 5, Err(Code::StaleMessage)),
    ] {
        let asker = Asker::of(&net.documents, &request(signer, TimeDelta::minutes(ago)).to_json(), now());
        let came = match &asker {
            Err(refusal) => Err(refusal.code),
            Ok(asker) => match asker.may_have(&net.documents, &net.store, result).await {
                Err(refusal) => Err(refusal.code),
                Ok(()) => Ok(list(&net.documents, &net.store, |permit| asker.may(permit)).await.unwrap().len()),
            },
        };
        assert_eq!(came, expect, "{signer}");
        if signer == "bob" {
            let listed = list(&net.documents, &net.store, |permit| asker.as_ref().unwrap().may(permit)).await.unwrap();
            assert!(listed.is_empty(), "bob learns of nothing");
        }
    }
}
