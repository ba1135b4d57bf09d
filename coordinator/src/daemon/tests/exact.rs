//! Exact results, through the door: hospitals where a person looks first, asking again, and what is not believed.

use sekisho_protocol::permit::{AllowedQuery, Preset, ReleaseKind};

use super::*;
use crate::report::RegisterWant;

const NOISED: &str = "SELECT count(*) AS n FROM person";

/// A coordinator whose permit lists [`SQL`] as aggregated and [`NOISED`] as noised, with its hospitals connected.
async fn world(modes: &[Mode]) -> World {
    let listed = |sql: &str, release| AllowedQuery { sha256: Digest::of(sql.as_bytes()), max_runs: 1, release };
    let mut w = World::with_permit(modes, |permit, _| {
        permit.release_kinds = vec![ReleaseKind::Noised, ReleaseKind::Aggregated];
        permit.disclosure = Preset::JpNdb;
        permit.allowed_queries = Some(vec![listed(SQL, ReleaseKind::Aggregated), listed(NOISED, ReleaseKind::Noised)]);
    })
    .await;
    for name in w.modes.keys().cloned().collect::<Vec<_>>() {
        w.connect(&name).await;
    }
    w
}

#[tokio::test]
async fn an_exact_result_is_asked_for_again_until_the_persons_at_hospitals_have_looked_and_costs_nothing() {
    let w = world(&[Mode::Answers, Mode::WaitsOnce, Mode::CallsItNoised]).await;
    let since = Some(now().date_naive());
    let caught = (HolderState::NoAnswer, Some(Code::Malformed), None);
    let answered = (HolderState::Answered, None, since);
    let waits = (HolderState::Refused, Some(Code::ExactWaiting), None);
    for expected in [[answered, waits, caught], [answered, answered, caught]] {
        let (report, batches) = w.ask(&w.query(SQL)).await.unwrap();
        let states: Vec<_> = report.holders.iter().map(|h| (h.state, h.code, h.exact_since)).collect();
        assert_eq!(states, expected, "{:?}", report.holders);
        assert_eq!(report.holders[1].waits(), expected[1] == waits);
        assert_eq!(report.privacy.micro_rho, MicroRho::ZERO);
        assert_eq!(report.privacy.protection.rules(), Some(&Preset::JpNdb.rules()));
        let text = serde_json::to_string(&report).unwrap();
        assert!(!text.contains("epsilon") && report.privacy.noise.is_empty(), "{text}");
        let own = batches[0].column_by_name("n").unwrap().as_primitive::<Int64Type>().value(0);
        let ends = ["n_low", "n_high"].map(|name| {
            let ends = batches[0].column_by_name(name).unwrap();
            ends.as_primitive::<arrow::datatypes::Float64Type>().value(0)
        });
        let answering = i64::try_from(states.iter().filter(|state| **state == answered).count()).unwrap();
        assert_eq!(own % (100 * answering), 0, "sums of what was released");
        assert_eq!(ends.map(|end| end as i64), [own, own], "there is no noise to have an interval of");
    }
    let budget = w.action("budget", serde_json::to_vec("study-1").unwrap()).await.unwrap();
    let budget: crate::report::BudgetReport = serde_json::from_slice(&budget).unwrap();
    let holders: Vec<_> = budget.holders.iter().map(|h| (h.spent.get(), h.exact_since)).collect();
    assert_eq!(holders, [(0, since), (0, since), (0, None)]);
}

#[tokio::test]
async fn a_noised_result_of_a_hospital_that_released_exact_ones_says_that_no_guarantee_holds() {
    let w = world(&[Mode::SaysSince]).await;
    let (report, _) = w.ask(&w.query(NOISED)).await.unwrap();
    assert!(report.privacy.protection.guarantee().unwrap().epsilon > 0.0);
    assert_eq!(report.holders[0].exact_since, Some(now().date_naive()));
    let want = serde_json::to_vec(&RegisterWant::default()).unwrap();
    let register: crate::use_register::UseRegister =
        serde_json::from_slice(&w.action("register", want).await.unwrap()).unwrap();
    let used = &register.uses[0];
    assert_eq!(used.holders[0].exact_since, Some(now().date_naive()));
    assert_eq!(used.queries[0].release_kind.as_ref().unwrap().code, "noised");
    let listed: Vec<_> = used.allowed_queries.iter().map(|query| query.release_kind.code.as_str()).collect();
    assert_eq!(listed, ["aggregated", "noised"]);
}

#[tokio::test]
async fn a_price_for_an_exact_query_is_refused_and_one_for_a_noised_query_is_needed() {
    let w = world(&[Mode::Answers]).await;
    for (sql, rho) in [(SQL, 1), (NOISED, 0)] {
        let (query, _) = w.query(sql).peek::<Query>().unwrap();
        let query = Query { micro_rho: MicroRho::try_from(rho).unwrap(), ..query };
        let envelope = Envelope::sign(&query, &[&w.person]).unwrap();
        assert_eq!(w.ask(&envelope).await.unwrap_err().code, Code::BudgetQuery, "{sql}");
    }
}
