//! What is metered is what the receipts say: each once, in its month.

use proptest::prelude::*;
use sekisho_aggregation::{
    noise::{Noise, Variance},
    release::{MeasureHeader, PartHeader},
};
use sekisho_protocol::{
    keys::SecretKey,
    permit::Permit,
    units::{AttoDelta, MicroRho},
};

use super::*;
use crate::{
    documents::tests::{key, permit},
    store::{NewRound, Place},
};

fn time(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

pub(crate) fn header(permit: Digest, parts: &[&[(&str, usize)]]) -> Vec<u8> {
    let measure = |(kind, numbers): &(&str, usize)| MeasureHeader {
        kind: (*kind).into(),
        unit: "1".into(),
        numbers: *numbers,
        noise: Some(Noise::Gaussian(Variance::for_sensitivity(1, MicroRho::try_from(1000).unwrap()).unwrap())),
    };
    let part = |part: &&[(&str, usize)]| PartHeader {
        names: None,
        measures: part.iter().map(measure).collect(),
        hidden: Vec::new(),
    };
    let header = ReleaseHeader {
        permit,
        query_key: permit,
        run: 1,
        plan: permit,
        micro_rho: MicroRho::ZERO,
        atto_delta: AttoDelta::ZERO,
        as_of: time("2026-11-01T00:00:00Z").date_naive(),
        synthetic: true,
        nonce: "00".repeat(32),
        parts: parts.iter().map(part).collect(),
        exact: None,
    };
    serde_json::to_vec(&header).unwrap()
}

fn receipt(node: &str, run: u32, micro_rho: u64, at: DateTime<Utc>, key: &SecretKey) -> Vec<u8> {
    let zero = Digest::of(b"");
    let receipt = Receipt {
        node: node.into(),
        permit: zero,
        study_id: "study-1".into(),
        query: zero,
        query_key: zero,
        run,
        plan: zero,
        micro_rho: MicroRho::try_from(micro_rho).unwrap(),
        atto_delta: AttoDelta::ZERO,
        synthetic: true,
        snapshot_commitment: zero,
        register_commitment: zero,
        as_of: at.date_naive(),
        release: zero,
        software: "fake".into(),
        at,
        release_kind: sekisho_protocol::permit::ReleaseKind::Noised,
        exact_since: None,
    };
    Envelope::sign(&receipt, &[key]).unwrap().to_json()
}

#[test]
fn a_month_is_from_its_first_second_to_the_first_of_the_next() {
    let november: Period = "2026-11".parse().unwrap();
    for (at, inside) in [
        ("2026-10-31T23:59:59.999999999Z", false),
        ("2026-11-01T00:00:00Z", true),
        ("2026-11-30T23:59:59.999999999Z", true),
        ("2026-12-01T00:00:00Z", false),
        ("2026-12-01T08:59:59+09:00", true),
    ] {
        assert_eq!(november.contains(time(at)), inside, "{at}");
    }
    assert_eq!(november.to_string(), "2026-11");
    assert!("2026-12".parse::<Period>().unwrap().contains(time("2026-12-31T23:59:59Z")));
    for text in ["2026-13", "2026-1", "2026", "26-11", "2026-11-01", "+026-11", "2026-00", ""] {
        assert!(text.parse::<Period>().is_err(), "{text}");
    }
}

#[test]
fn cells_are_the_groups_of_the_finest_grouping_of_each_part() {
    let zero = Digest::of(b"");
    for (parts, expect) in [
        (vec![&[("rows", 6), ("sum", 6)][..]], 6),
        (vec![&[("rows", 6), ("patients", 3), ("heavy", 1)][..]], 6),
        (vec![&[("patients", 4), ("histogram", 4000)][..], &[("rows", 2)][..]], 6),
    ] {
        assert_eq!(cells(&header(zero, &parts)).unwrap(), expect);
    }
    assert!(cells(b"{}").is_err());
}

#[test]
fn sizes_have_classes() {
    for (patients, class) in [(-5, "small"), (9_999, "small"), (10_000, "medium"), (1_000_000, "very-large")] {
        assert_eq!(SizeClass::of(patients).as_str(), class);
    }
}

#[tokio::test]
async fn a_release_that_was_served_again_is_metered_once_while_the_coordinator_runs() {
    let (dir, key) = (tempfile::tempdir().unwrap(), key());
    let path = dir.path().join("coordinator.db");
    assert!(Store::open_to_read(&path).await.is_err(), "no database is made by reading");
    let store = Store::open(&path).await.unwrap();
    let granted: Permit = permit(&key, 1, Digest::of(b"schema"));
    let digest = Digest::of(&serde_json::to_vec(&granted).unwrap());
    let (at, place) = (time("2026-11-30T23:59:59Z"), Place { name: granted.id.clone(), seq: 1 });
    store.put_document(Kind::Permit, digest, &place, b"{}", at).await.unwrap();
    let again = receipt("h0", 1, 1000, at, &key);
    // The same release in November's round and again in December's, and a new run of December.
    for (round, releases) in [
        ("r1", vec![("h0", again.clone()), ("h1", receipt("h1", 1, 1000, at, &key))]),
        ("r2", vec![("h0", again)]),
        ("r3", vec![("h0", receipt("h0", 2, 700, time("2026-12-01T00:00:00Z"), &key))]),
    ] {
        let begun = NewRound {
            round: round.into(),
            query: digest,
            question: b"{}".to_vec(),
            query_key: digest,
            permit: digest,
            run: 1,
            started: at,
        };
        store.begin_round(&begun).await.unwrap();
        for (node, receipt) in releases {
            store
                .put_release(round, node, &(header(digest, &[&[("rows", 3)]]), vec![0; 48]), &receipt, b"proof")
                .await
                .unwrap();
        }
    }
    let tariff =
        "currency = \"JPY\"\ndecimals = 0\nrounding = \"up\"\n[class.unknown]\nper_run = 500\nper_rho = 1000\n";
    let tariff = Tariff::from_toml(tariff).unwrap();
    let reading = Store::open_to_read(&path).await.unwrap();
    let of = async |period: &str| {
        let export = export(&reading, period.parse().unwrap(), Some(&tariff)).await.unwrap();
        let line = |l: &Line| (l.holder.clone(), l.runs, l.cells, l.micro_rho, l.amount_minor);
        (export.lines.iter().map(line).collect::<Vec<_>>(), export.total_minor)
    };
    let line = |holder: &str, micro_rho| (holder.to_string(), 1, 3, micro_rho, Some(501));
    assert_eq!(of("2026-11").await, (vec![line("h0", 1000), line("h1", 1000)], Some(1002)));
    assert_eq!(of("2026-12").await, (vec![line("h0", 700)], Some(501)));
    assert_eq!(of("2026-10").await, (Vec::new(), Some(0)));
    let november = "2026-11".parse().unwrap();
    let free = export(&reading, november, None).await.unwrap();
    assert!(free.total_minor.is_none() && free.lines.iter().all(|line| line.amount_minor.is_none()));
    store.close().await;
    assert_eq!(export(&reading, november, None).await.unwrap().lines, free.lines);
    reading.close().await;
    let stopped = Store::open_to_read(&path).await.unwrap();
    assert_eq!(export(&stopped, november, None).await.unwrap().lines, free.lines, "of a coordinator that is stopped");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whatever is served how often in which order: the sums are those of the different receipts of the period.
    #[test]
    fn sums_are_those_of_the_different_receipts_of_the_period(
        served in prop::collection::vec((0_u32..3, 1_u32..6, 1_u64..2_000_000, 0_i64..3), 0..40),
    ) {
        let key = key();
        let november: Period = "2026-11".parse().unwrap();
        let (mut tally, mut expect) = (Tally::default(), BTreeMap::new());
        let zero = Digest::of(b"");
        for (node, run, micro_rho, month) in served {
            let at = time("2026-10-15T00:00:00Z") + chrono::Duration::days(30 * month);
            let receipt = receipt(&format!("h{node}"), run, micro_rho, at, &key);
            tally.count(&header(zero, &[&[("rows", 2)]]), &receipt, |at| november.contains(at)).unwrap();
            if month == 1 {
                expect.insert((node, run, micro_rho), micro_rho);
            }
        }
        let rows: Vec<Used> = tally.rows().map(|(_, _, used)| used).collect();
        prop_assert_eq!(rows.iter().map(|used| used.micro_rho).sum::<u64>(), expect.values().sum::<u64>());
        prop_assert_eq!(rows.iter().map(|used| used.runs).sum::<u64>(), expect.len() as u64);
        prop_assert_eq!(rows.iter().map(|used| used.cells).sum::<u64>(), 2 * expect.len() as u64);
    }
}
