use chrono::{DateTime, TimeDelta, Utc};
use sekisho_protocol::{permit::Basis, status::RevokedPermit};

use super::*;
use crate::{
    documents::tests::{key, now, permit, status},
    duties::Task,
    report::{ApplicationReport, ApplicationState},
};

fn day(text: &str) -> NaiveDate {
    text.parse().unwrap()
}

/// A permit of EHDS, decided on and valid from 2026-01-01 for 30 days, with what is known besides.
fn known() -> (Known, Digest) {
    let mut permit = permit(&key(), 1, Digest::of(b"schema"));
    permit.basis = Basis::Ehds69;
    let digest = Digest::of(b"permit");
    (Known { permits: vec![(digest, permit)], ..Known::default() }, digest)
}

fn publication(what: Published, digest: Digest, at: DateTime<Utc>) -> Publication {
    Publication { what, id: "permit-1".into(), digest, url: "https://example.org".into(), at }
}

/// The tasks with their state and day, by day.
fn listed(known: &Known, today: &str) -> Vec<(Task, State, String)> {
    let mut duties = duties(known, &presets(None).unwrap(), day(today), 30).unwrap();
    duties.sort_by_key(|d| (d.due, d.task));
    duties.into_iter().map(|d| (d.task, d.state, d.due.to_string())).collect()
}

#[test]
fn what_is_due_is_late_the_day_after_its_last() {
    let (known, _) = known();
    let states = |today| listed(&known, today).into_iter().map(|(_, state, _)| state).collect::<Vec<_>>();
    let tasks = |today| listed(&known, today).into_iter().map(|(task, _, due)| (task, due)).collect::<Vec<_>>();
    let due = |task, day: &str| (task, day.to_string());
    let open = [
        due(Task::EndPermit, "2026-01-30"),
        due(Task::PublishDecision, "2026-02-12"),
        due(Task::PublishResults, "2027-07-30"),
    ];
    assert_eq!(tasks("2026-01-10"), open);
    assert_eq!(states("2026-01-10"), [State::Soon, State::Open, State::Open]);
    assert_eq!(states("2026-01-30"), [State::Soon, State::Soon, State::Open]);
    // After its end a permit has logs that are kept.
    assert_eq!(states("2026-02-12"), [State::Done, State::Soon, State::Open, State::Open]);
    assert_eq!(states("2026-02-13"), [State::Done, State::Late, State::Open, State::Open]);
    assert_eq!(states("2027-07-31"), [State::Done, State::Late, State::Done, State::Late]);
}

#[test]
fn what_was_published_is_done_and_a_revoked_permit_ends_early() {
    let (mut known, digest) = known();
    known.publications.push(publication(Published::Decision, digest, now()));
    known.publications.push(publication(Published::Results, Digest::of(b"another"), now()));
    let at = now() + TimeDelta::days(4);
    let mut status = status(1, None, Vec::new());
    status.revoked_permits.push(RevokedPermit { permit: digest, reason: "withdrawn".into(), at });
    known.status = Some(status);
    let listed = listed(&known, "2026-01-10");
    assert!(listed.contains(&(Task::PublishDecision, State::Done, "2026-02-12".into())), "{listed:?}");
    assert!(listed.contains(&(Task::EndPermit, State::Done, "2026-01-30".into())), "{listed:?}");
    assert!(listed.contains(&(Task::PublishResults, State::Open, "2027-07-05".into())), "{listed:?}");
}

#[test]
fn the_permits_own_day_for_results_goes_first_and_only_the_newest_version_owes_them() {
    let (mut known, first) = known();
    let mut second = known.permits[0].1.clone();
    (second.version, second.supersedes, second.results_due) = (2, Some(first), Some(day("2026-06-30")));
    known.permits.push((Digest::of(b"second"), second));
    let results = |known: &Known| {
        let results = listed(known, "2026-07-01").into_iter().filter(|(task, _, _)| *task == Task::PublishResults);
        results.collect::<Vec<_>>()
    };
    assert_eq!(results(&known), [(Task::PublishResults, State::Late, "2026-06-30".into())]);
    known.publications.push(publication(Published::Results, first, now()));
    assert_eq!(results(&known), [(Task::PublishResults, State::Done, "2026-06-30".into())]);
}

#[test]
fn a_complete_application_waits_for_its_decision() {
    let report = ApplicationReport {
        id: "a".into(),
        version: 1,
        digest: Digest::of(b"a"),
        basis: Basis::Ehds68,
        applicant: "university".into(),
        state: ApplicationState::Complete,
        put_at: now(),
        complete_since: Some(now()),
    };
    let known = Known { applications: vec![report], ..Known::default() };
    assert_eq!(listed(&known, "2026-04-02"), [(Task::Decide, State::Late, "2026-04-01".to_string())]);
}

#[test]
fn periods_are_a_preset_or_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("periods.toml");
    std::fs::write(&path, "[eu-ehds]\npublish_decision = { days = 1, article = \"ours\" }\n").unwrap();
    let (known, _) = known();
    let count = |chosen: &str| {
        let presets = presets(Some(chosen)).unwrap();
        duties(&known, &presets, day("2026-01-10"), 30).map(|duties| duties.len())
    };
    assert_eq!(count(&path.display().to_string()), Ok(2));
    assert_eq!(count("jp-ngmia"), Ok(2), "its law gives no day for a decision's publication");
    assert!(presets(Some("missing.toml")).is_err());
}
