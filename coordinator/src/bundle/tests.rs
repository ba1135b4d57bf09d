//! Bundles of small networks: whole ones verify, and whatever is changed is named.

pub(crate) mod memory_log;
mod net;

use std::collections::BTreeMap;

use proptest::{prelude::*, test_runner::TestRunner};
use sekisho_protocol::{
    digest::Digest,
    dsse::{Document, Envelope},
    output_review::Verdict,
    permit::Permit,
    published::PublishedRelease,
    receipt::Receipt,
    refusal::Code,
};

use self::net::{Net, SQL, Shape, key, signed};
use super::{
    archive, describe, layout, make,
    trust::Trust,
    verify::{Report, link::Link, verify},
};

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
            for reviewer in ["sato", "ito"] {
                net.review(result, reviewer, Verdict::Release).await;
            }
        }
        net.witness().await;
        let files = net.bundle(result).await.files().clone();
        (net, result, files)
    })
}

const THREE: Shape = Shape { hospitals: 3, missing: false, two_person: false, history: false };

#[test]
fn a_whole_bundle_verifies_whatever_the_network() {
    for shape in [
        Shape { hospitals: 1, ..THREE },
        THREE,
        Shape { missing: true, ..THREE },
        Shape { two_person: true, ..THREE },
        Shape { history: true, ..THREE },
        Shape { missing: true, two_person: true, history: true, ..THREE },
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
