//! What a person with a permit asks.

use std::collections::BTreeSet;

use sekisho_aggregation::{noise::Noise, plan::PrivatePlan};
use sekisho_node::{data::snapshot, hooks::Hooks};
use sekisho_protocol::{
    permit::Permit,
    query::{NarrowBounds, Query, Terms},
    refusal::Code,
    schema::Bounds,
    units::MicroRho,
};
use sekisho_tests::{COLUMNS, SCHEMA};
use serde_json::Value;

use super::{Hospital, others};
use crate::engine::one_patient_moves;

/// Questions that try to hold one patient apart, or to make more of one patient than the bounds say: the target has two hundred
/// visits, an age of 9,999 and days down to -99,999, which nobody else has.
const HOSTILE: &[&str] = &[
    // CASE and FILTER on what only the target has; an indicator times a column; its complement.
    "SELECT sum(CASE WHEN p.age > 500 THEN v.days ELSE 0 END) AS a, sum(CASE WHEN p.age <= 500 THEN v.days END) AS b FROM visit v \
     JOIN person p ON v.patient_id = p.patient_id",
    "SELECT count(*) FILTER (WHERE days < -90000) AS n, sum(days) FILTER (WHERE days < -90000) AS s, count(DISTINCT patient_id) \
     FILTER (WHERE days < -90000) AS p, count(*) AS all FROM visit",
    "SELECT corr(days, CASE WHEN days < -90000 THEN 1 ELSE 0 END) AS r, covar_pop(days, CASE WHEN days < -90000 THEN 1 ELSE 0 END) AS c FROM visit",
    "SELECT var_pop(CASE WHEN days < -90000 THEN 20 ELSE 0 END) AS v, stddev(days) AS s, avg(days * days) AS q FROM visit",
    "SELECT median(CASE WHEN days < -90000 THEN 20 ELSE 0 END) AS m, min(days) AS lo, max(days * days * days) AS hi FROM visit",
    // Products that wrap around within the row.
    "SELECT sum(least(greatest(days * 1000000 * 1000000 * 1000000 * 1000000, 0), 20)) AS s FROM visit",
    // Rows that joins multiply: with themselves, with literals, with a public table, after a GROUP BY that had one row.
    "SELECT count(*) AS n, sum(a.days) AS s FROM visit a JOIN visit b ON a.patient_id = b.patient_id AND a.seen <= b.seen",
    "SELECT count(*) AS n, sum(v.days) AS s FROM visit v JOIN (VALUES ('A'), ('A'), ('A'), ('A'), ('A')) AS x(k) ON v.code = x.k \
     JOIN (VALUES ('A'), ('A'), ('A'), ('A'), ('A'), ('A'), ('A')) AS y(k) ON v.code = y.k",
    "SELECT c.label, count(*) AS n, count(DISTINCT t.patient_id) AS p FROM (SELECT patient_id, min(code) AS code FROM visit GROUP BY patient_id) t \
     JOIN chapter c ON c.code = t.code JOIN (VALUES ('A'), ('A'), ('A')) AS x(k) ON x.k = t.code GROUP BY c.label",
    "SELECT sum(t.n) AS s, count(*) AS n FROM (SELECT patient_id, least(count(*), 20) AS n FROM visit GROUP BY patient_id) t \
     JOIN (VALUES (20), (20), (20), (20)) AS x(k) ON t.n = x.k",
    // The same rows many times over; sets of rows per patient; windows in a CTE.
    "SELECT count(*) AS n, sum(days) AS s FROM (SELECT patient_id, days FROM visit UNION ALL SELECT patient_id, days FROM visit UNION ALL \
     SELECT patient_id, days FROM visit UNION ALL SELECT patient_id, age FROM person) t",
    "SELECT count(*) AS n FROM (SELECT patient_id, max(days) AS d FROM visit GROUP BY patient_id UNION ALL SELECT patient_id, min(days) FROM visit \
     GROUP BY patient_id) t WHERE d < 0",
    "WITH w AS (SELECT patient_id, code, sum(days) OVER (PARTITION BY patient_id ORDER BY seen) AS s, count(*) OVER (PARTITION BY patient_id) AS c \
     FROM visit) SELECT code = 'A' AS a, sum(least(c, 1000)) AS n, sum(least(greatest(s, -1000), 1000)) AS s FROM w WHERE c > 100 GROUP BY 1",
    "SELECT count(*) AS n FROM person p LEFT JOIN visit v ON v.patient_id = p.patient_id AND v.days < -90000 WHERE v.patient_id IS NOT NULL",
    // Many groups, margins, grouping(), and what is asked of released cells.
    "SELECT date_part('month', seen) AS m, date_part('day', seen) AS d, count(*) AS n, count(DISTINCT patient_id) AS p, sum(days) AS s, \
     grouping(date_part('month', seen)) AS g FROM visit GROUP BY ROLLUP (date_part('month', seen), date_part('day', seen))",
    "SELECT p.sex, count(*) AS n FROM person p WHERE NOT EXISTS (SELECT 1 FROM visit v WHERE v.patient_id = p.patient_id AND v.days < -90000) \
     GROUP BY p.sex HAVING count(*) > 0 OR count(*) <= 0 ORDER BY n DESC LIMIT 1",
    "SELECT a.n - b.n AS target FROM (SELECT count(*) AS n FROM visit) a JOIN (SELECT count(*) AS n FROM visit WHERE days >= -90000) b ON TRUE",
    // Texts that are alike but for case, blanks or normal form are what their bytes are.
    "SELECT CASE WHEN code = 'A ' THEN 'blank' WHEN lower(trim(code)) = 'a' THEN 'a' WHEN code LIKE '\u{c4}%' THEN 'x' END AS c, count(*) AS n \
     FROM visit WHERE code <> 'A\u{308}' GROUP BY 1",
];

#[tokio::test(flavor = "multi_thread")]
async fn no_hostile_question_makes_more_of_a_patient_than_the_bounds_say() {
    one_patient_moves(HOSTILE).await;
}

const COUNT: &str = "SELECT count(*) AS n FROM stay";

/// The same question is paid for each time, its noise is new each time, and no narrower for it: the mean of n runs is as good as one
/// run at n times the price, and no better.
#[tokio::test]
async fn the_mean_of_many_runs_is_no_more_exact_than_their_price() {
    const RUNS: u32 = 40;
    const RHO: u64 = 1_000;
    let hospital = Hospital::of(&others(), |p| {
        p["dp"]["micro_rho_per_query"] = (u64::from(RUNS) * RHO).into();
        p["dp"]["micro_rho_total"] = (u64::from(RUNS) * RHO).into();
    })
    .await;
    let (mut numbers, mut noise) = (Vec::new(), None);
    for run in 1..=RUNS {
        let release = hospital.solo.ask(&hospital.solo.query(hospital.permit, COUNT, RHO, run)).await.unwrap().release;
        noise = Some(release.header().parts[0].measures[0].noise.clone());
        numbers.push(release.parts()[0][0][0]);
        assert_eq!(hospital.spent().await, u64::from(run) * RHO);
    }
    assert_eq!(hospital.code(hospital.permit, COUNT, RHO, RUNS + 1).await, Err(Code::BudgetStudy));
    let again = hospital.solo.ask(&hospital.solo.query(hospital.permit, COUNT, RHO, 1)).await.unwrap().release;
    assert_eq!(
        (again.parts()[0][0][0], hospital.spent().await),
        (numbers[0], u64::from(RUNS) * RHO),
        "served again, free"
    );
    assert_eq!(numbers.iter().collect::<BTreeSet<_>>().len(), numbers.len(), "noise of its own each time");
    let Some(Some(Noise::Gaussian(variance))) = noise else { panic!("Gaussian noise") };
    let schema = serde_json::from_str(SCHEMA).unwrap();
    let whole =
        PrivatePlan::analyse(COUNT, &schema, &hospital.granted, MicroRho::try_from(u64::from(RUNS) * RHO).unwrap())
            .unwrap();
    let Some(Noise::Gaussian(at_once)) = whole.parts()[0].noise(&whole.parts()[0].measures()[0]) else {
        panic!("Gaussian noise")
    };
    let ratio = variance.as_f64() / at_once.as_f64();
    assert!(
        (ratio - f64::from(RUNS)).abs() < 1e-6,
        "{ratio}: the mean's variance is that of one run at the whole price"
    );
    // 39 degrees of freedom: outside 12 and 85 with a probability below 10^-5.
    #[expect(clippy::cast_precision_loss)]
    let numbers: Vec<f64> = numbers.into_iter().map(|n| n as f64).collect();
    let mean = numbers.iter().sum::<f64>() / f64::from(RUNS);
    let chi = numbers.iter().map(|n| (n - mean).powi(2)).sum::<f64>() / variance.as_f64();
    assert!((12.0..85.0).contains(&chi), "{chi}");
}

/// Every admitted expression over rows at the ends of every type, and over ordinary ones: both have an answer.
#[tokio::test]
async fn no_row_makes_an_admitted_question_fail() {
    let extreme: String = [i64::MAX, i64::MIN, -1, 0, i64::MAX / 2 + 1]
        .iter()
        .flat_map(|a| [i64::MIN, 0, i64::MAX].map(|b| format!("777,unknown,{a},{b},{a},\"9999-12-31\u{1f600}\"\n")))
        .collect();
    let extreme = format!("{}{extreme}778,,,,,\n", others());
    for rows in [others(), extreme] {
        let hospital = Hospital::of(&rows, |_| {}).await;
        for sql in [
            "SELECT sum(least(greatest(age * days * free * age, -5), 5)) FROM stay",
            "SELECT count(*) FROM stay WHERE free / days > 1 OR free % days = 0 OR days / free < age % free",
            "SELECT count(*) FROM stay WHERE -free > abs(free) OR abs(age * 2) < sign(days) OR free - 1 > free + 1",
            "SELECT count(*) FROM stay WHERE CAST(free AS decimal(30, 5)) * 7.25 / CAST(days AS decimal(25, 2)) > 1.5",
            "SELECT count(*) FROM stay WHERE round(TRY_CAST(free AS decimal(18, 9))) = ceil(TRY_CAST(days AS decimal(9, 2)))",
            "SELECT count(*) FROM stay WHERE TRY_CAST(note AS date) + INTERVAL '9999 years' > DATE '2024-01-01'",
            "SELECT count(*) FROM stay WHERE date_trunc('week', TRY_CAST(left(note, 10) AS date)) - DATE '0001-01-01' > 3",
            "SELECT date_part('year', TRY_CAST(left(note, 10) AS date) - INTERVAL '5000 years') > 5, count(*) FROM stay GROUP BY 1",
            "SELECT count(*) FROM stay WHERE TRY_CAST(note AS bigint) + TRY_CAST(CAST(free AS text) AS decimal(20, 10)) > 0",
            "SELECT count(*) FROM stay WHERE CASE WHEN days = 0 THEN TRUE ELSE free / days > 3 END AND coalesce(free, days) % nullif(age, 0) = 1",
            "SELECT avg(t.s), max(t.s) FROM (SELECT patient_id, least(greatest(sum(free), -100), 100) AS s, avg(free) AS m FROM stay GROUP BY patient_id) t WHERE m > 0",
            "SELECT count(*) FROM (SELECT free - lag(free) OVER (PARTITION BY patient_id ORDER BY days) AS gap FROM stay) t WHERE gap > 0",
            "SELECT count(*) FROM stay WHERE substr(upper(note) || lower(note), 3, 1000000) LIKE '%\u{1f600}_%' OR strpos(note, '') > 0",
            "SELECT corr(age, days), var_samp(days), median(age), max(days) FROM stay",
        ] {
            let said = hospital.code(hospital.permit, sql, 10_000, 1).await;
            assert_eq!(said, Ok(()), "{sql}");
        }
    }
}

/// Spending is the study's, whatever is renamed, amended, taken anew or granted beside it.
#[tokio::test]
async fn no_document_and_no_snapshot_gives_a_study_its_budget_back() {
    const RHO: u64 = 10_000;
    let rows = others();
    let small = |p: &mut Value| {
        p["dp"]["micro_rho_per_query"] = RHO.into();
        p["dp"]["micro_rho_total"] = (2 * RHO).into();
    };
    let hospital = Hospital::of(&rows, small).await;
    let ask = async |permit, run| hospital.code(permit, COUNT, RHO, run).await;
    assert_eq!([ask(hospital.permit, 1).await, ask(hospital.permit, 2).await], [Ok(()), Ok(())]);
    assert_eq!(ask(hospital.permit, 3).await, Err(Code::BudgetStudy));
    let solo = &hospital.solo;
    let granted = |id: &str, change: &dyn Fn(&mut Permit)| {
        let mut permit = solo.permit("study", "stay", &COLUMNS, small).unwrap();
        permit.id = id.into();
        change(&mut permit);
        permit
    };
    // A second version, and a second permit of the same study under another id, for other statistics, persons and presets.
    let amended = solo
        .grant(&granted("study", &|p| {
            p.version = 2;
            p.supersedes = Some(hospital.permit);
        }))
        .await
        .unwrap();
    let beside = solo.grant(&granted("beside", &|p| p.issuer = "another".into())).await.unwrap();
    // The source changed, and was read anew.
    std::fs::write(
        hospital.dir.path().join("stay.csv"),
        format!("patient_id,sex,age,days,free,note\n{rows}999,male,1,1,1,x\n"),
    )
    .unwrap();
    assert_eq!(ask(amended, 1).await, Err(Code::SourceChanged));
    let mapping = solo.node.data[0].mapping();
    let (folder, settings) =
        (hospital.dir.path().join("node/state/snapshots"), snapshot::Settings::with_memory(1 << 28));
    snapshot::take(mapping, &folder, &settings, &|_| {}, &Hooks::default(), solo.now()).await.unwrap();
    for permit in [hospital.permit, amended, beside] {
        assert_eq!(ask(permit, 7).await, Err(Code::BudgetStudy));
    }
    assert_eq!(hospital.spent().await, 2 * RHO);
    assert_eq!(ask(hospital.permit, 1).await, Ok(()), "what was released is served");
    // A permit that grants more raises the earmark to its total, not by it.
    let more =
        solo.grant(&granted("more", &|p| p.dp.micro_rho_total = MicroRho::try_from(3 * RHO).unwrap())).await.unwrap();
    assert_eq!(
        [ask(more, 1).await, ask(more, 2).await, ask(beside, 1).await],
        [Ok(()), Err(Code::BudgetStudy), Err(Code::BudgetStudy)]
    );
}

/// A coordinator that turns the order of a person's runs round: each is what it is, and paid for once.
#[tokio::test]
async fn runs_that_arrive_in_another_order_are_the_same_runs() {
    let hospital = Hospital::of(&others(), |_| {}).await;
    let (solo, mut released) = (&hospital.solo, Vec::new());
    let routed: Vec<_> =
        (1..=3).map(|run| solo.routed(&solo.query(hospital.permit, COUNT, 1_000, run)).unwrap()).collect();
    for place in [2, 0, 1, 0, 2] {
        let release = solo.send(&routed[place]).await.unwrap().release;
        assert_eq!(release.header().run as usize, place + 1);
        released.push((place, release.digest()));
    }
    assert_eq!((released[0], released[1]), (released[4], released[3]), "the same message again is the same release");
    assert_eq!(hospital.spent().await, 3_000);
}

/// Terms that are chosen after an answer was seen narrow what counts, and are paid for like any question; none widens, and a range of one
/// value, whose noise would be none, is refused.
#[tokio::test]
async fn terms_narrow_and_never_widen_and_none_takes_the_noise_away() {
    let hospital = Hospital::of(&others(), |_| {}).await;
    let (solo, sql) = (&hospital.solo, "SELECT sum(days) AS s FROM stay");
    let bounds = |min: &str, max: &str| {
        vec![NarrowBounds {
            table: "stay".into(),
            column: "days".into(),
            bounds: Bounds { min: min.into(), max: max.into() },
        }]
    };
    let terms = Terms::default;
    for (terms, expect) in [
        (Terms { bounds: bounds("0", "101"), ..terms() }, Err(Code::Terms)),
        (Terms { bounds: bounds("-1", "100"), ..terms() }, Err(Code::Terms)),
        (Terms { bounds: bounds("0", "0"), ..terms() }, Err(Code::UnboundedColumn)),
        (Terms { rows_per_patient: Some(6), ..terms() }, Err(Code::Terms)),
        (Terms { groups_per_patient: Some(3), ..terms() }, Err(Code::Terms)),
        (Terms { bounds: bounds("99", "100"), rows_per_patient: Some(1), ..terms() }, Ok(())),
        (Terms { bounds: bounds("38", "39"), bite_percent: Some(50), ..terms() }, Ok(())),
    ] {
        let query = Query { terms: terms.clone(), ..solo.query(hospital.permit, sql, 10_000, 1) };
        let answer = solo.ask(&query).await;
        assert_eq!(answer.as_ref().map(|_| ()).map_err(|r| r.code), expect, "{terms:?}");
        let Ok(answer) = answer else { continue };
        // The report of how much the bounds bit is noised at its own price, like everything else.
        let measures = &answer.release.header().parts[0].measures;
        assert!(
            measures.iter().all(|m| matches!(&m.noise, Some(Noise::Gaussian(v)) if v.as_f64() > 1.0)),
            "{measures:?}"
        );
    }
    assert_eq!(hospital.spent().await, 20_000);
}
