//! Distinguishability: the release path, with its real noise, on neighbouring data sets.
//!
//! From SQL to [`Release::make`], with a generator of a fixed seed, so that every run is the same. Each question is looked at in two ways.
//! *Exactly*: with one seed for both neighbours the noise is the same and goes away in their difference, which has to be within
//! what noise and price allow, in integers, and reaches it where the target is as extreme as can be. *Blindly*: with seeds of their
//! own the two neighbours' releases may not differ more than the claim says for any event that [`audit`] finds.
//!
//! `tests/mutants/` has faults that this suite finds; `docs/privacy.md` says at which power, and what it does not show.

mod audit;
mod claim;
mod hospital;
mod mutants;

use std::{ops::Range, sync::Arc};

use chrono::NaiveDate;
use datafusion::prelude::SessionContext;
use num_bigint::{BigInt, BigUint};
use rand::{Rng, SeedableRng, rngs::StdRng};
use sekisho_aggregation::{
    accounting::pure_epsilon_cost,
    domain::KeyValue,
    noise::Noise,
    plan::{Price, PrivatePlan, Quantity},
    release::Release,
    reservation::Reservation,
};
use sekisho_protocol::{
    digest::Digest,
    permit::Mechanism,
    query::Terms,
    schema::Schema,
    units::{AttoDelta, MicroRho},
};

use crate::library::{Library, NoLedger, folded, permit};
use audit::{ALPHA, Broken, Trials, held_out};
use claim::Claim;
use hospital::Target;

/// Of each measure: one patient may move it by two deviations of its noise, where a sample tells most.
const MICRO_RHO: u64 = 2_000_000;
/// Of each measure under Laplace noise: epsilon 2.
const MICRO_EPSILON: u64 = 2_000_000;
/// Rows of a patient that count in full, and groups.
const BOUNDS: (u32, u32) = (5, 3);

/// A question, asked of many trials at once.
struct Question {
    sql: &'static str,
    trials: usize,
    laplace: bool,
    target: Target,
    delta: AttoDelta,
    /// A factor between what a patient does and may do that has to be found with a probability of 0.99.
    finds: f64,
}

/// Twelve rows in one group: far more than count in full.
const ONE_GROUP: Target = Target { rows: 12, groups: 1, drugs: 1 };

fn question(sql: &'static str, trials: usize, target: Target) -> Question {
    Question { sql, trials, laplace: false, target, delta: AttoDelta::ZERO, finds: 1.2 }
}

impl Question {
    fn schema(&self) -> Schema {
        hospital::schema(self.trials)
    }

    /// The plan, at a rho of so much for each measure.
    fn plan(&self) -> Arc<PrivatePlan> {
        let mut permit = permit(&self.schema(), BOUNDS.0, BOUNDS.1);
        (permit.dp.atto_delta_per_query, permit.dp.atto_delta_total) = (self.delta, self.delta);
        if self.laplace {
            permit.dp.mechanism = Mechanism::Laplace;
        }
        let terms = Terms { atto_delta: self.delta, ..Terms::default() };
        let plan = |rho: u64| {
            let rho = MicroRho::try_from(rho).unwrap();
            PrivatePlan::analyse_with(self.sql, &self.schema(), &permit, rho, &terms).unwrap_or_else(|e| panic!("{e}"))
        };
        let measures = plan(MICRO_RHO).parts()[0].measures().len() as u64;
        let rho = match self.laplace {
            true => pure_epsilon_cost(MICRO_EPSILON * measures).unwrap().get(),
            false => MICRO_RHO * measures,
        };
        Arc::new(plan(rho))
    }

    async fn release(&self, plan: &Arc<PrivatePlan>, tables: SessionContext, seed: u64) -> Release {
        let schema = self.schema();
        let library = Library { permit: permit(&schema, BOUNDS.0, BOUNDS.1), schema, tables };
        let mut parts = Vec::new();
        for part in plan.parts() {
            parts.push(library.rows(plan, part).await.unwrap());
        }
        let Ok(reservation) = Reservation::make(plan, Digest::of(b"p"), Digest::of(b"q"), 1, &NoLedger).await;
        let mut rng = StdRng::seed_from_u64(seed);
        Release::make(plan, folded(plan, &parts), &reservation, NaiveDate::default(), true, &mut rng).unwrap()
    }

    async fn of(&self, plan: &Arc<PrivatePlan>, with: bool, seed: u64) -> Vec<Vec<i128>> {
        let tables = hospital::trials(&self.schema(), self.trials, self.target, with);
        self.split(plan, &self.release(plan, tables, seed).await)
    }

    /// The numbers of each trial, measure by measure. The first key numbers the trials; whatever is outside has none.
    fn split(&self, plan: &PrivatePlan, release: &Release) -> Vec<Vec<i128>> {
        let widths = widths(plan, release);
        let of = |trial: usize| {
            let measures = release.parts()[0].iter().zip(&widths);
            measures.flat_map(|(numbers, width)| numbers[trial * width..][..*width].iter().copied()).collect()
        };
        (0..self.trials).map(of).collect()
    }

    /// Both neighbours, with noise of their own; and what is known of the numbers.
    async fn neighbours(&self, seed: u64) -> (Arc<PrivatePlan>, Trials, Vec<Range<usize>>) {
        let plan = self.plan();
        let empty = hospital::trials(&self.schema(), 0, self.target, false);
        let header = self.release(&plan, empty, 0).await;
        let (mut noise, mut places) = (Vec::new(), Vec::new());
        for (measure, width) in header.header().parts[0].measures.iter().zip(widths(&plan, &header)) {
            places.push(noise.len()..noise.len() + width);
            noise.extend(std::iter::repeat_n(measure.noise.clone().unwrap(), width));
        }
        let trials =
            Trials { without: self.of(&plan, false, seed).await, with: self.of(&plan, true, seed + 1).await, noise };
        (plan, trials, places)
    }

    /// The same question of few trials, with one seed for both neighbours.
    async fn exactly(&self, seed: u64, tight: &[usize]) -> Vec<String> {
        let few = Self { trials: 20, ..*self };
        let (plan, trials, places) = few.neighbours(seed).await;
        let same = few.of(&plan, true, seed).await;
        let mut wrong: Vec<String> = Vec::new();
        for (trial, (a, b)) in trials.without.iter().zip(&same).enumerate() {
            for (i, (places, measure)) in places.iter().zip(plan.parts()[0].measures()).enumerate() {
                let moved = a[places.clone()].iter().zip(&b[places.clone()]).map(|(a, b)| BigInt::from(b - a));
                let (got, most) = exact(moved, &trials.noise[places.start], measure.price);
                if got > most || tight.contains(&i) && got.clone() * 1_000_000 < most.clone() * 999_999 {
                    wrong.push(format!("trial {trial}, measure {i}: the target moves {got} of {most}"));
                }
            }
        }
        wrong.truncate(3);
        wrong
    }

    /// Judges the question: exactly and blindly. All measures have one price, so that power is looked at once. `tight` are the measures (by place) that the target moves as far as any may.
    async fn holds(&self, seed: u64, tight: &[usize]) {
        let mut wrong = self.exactly(seed, tight).await;
        let (plan, trials, places) = self.neighbours(seed).await;
        let measures = plan.parts()[0].measures();
        let claims: Vec<Claim> =
            measures.iter().zip(&places).map(|(m, p)| claim(m.price, &trials.noise[p.start])).collect();
        for (i, (measure, places)) in measures.iter().zip(&places).enumerate() {
            let name = format!("measure {i}, {:?}", measure.quantity);
            wrong.extend(trials.likelihood(&name, places.clone(), claims[i]).map(shown));
            let found = claims[i].finds(self.finds, held_out(self.trials) as u64, ALPHA);
            assert!(i > 0 || found, "so few trials do not find a factor of {}", self.finds);
        }
        let whole = whole(&plan, &claims);
        wrong.extend(trials.likelihood("all", 0..trials.noise.len(), whole).map(shown));
        wrong.extend(trials.others(whole).into_iter().map(shown));
        assert!(wrong.is_empty(), "{}\n{}", self.sql, wrong.join("\n"));
    }
}

fn shown(broken: Broken) -> String {
    format!("{broken:?}")
}

/// How many numbers of each measure a trial has.
fn widths(plan: &PrivatePlan, release: &Release) -> Vec<usize> {
    let cells = plan.parts()[0].keys()[0].cells();
    release.parts()[0].iter().map(|numbers| numbers.len() / cells).collect()
}

/// How far a measure moves, and the most that its noise allows at its price, as whole numbers: the squares' sum for Gaussian noise, where
/// d²/(2·variance) is at most rho; the sum for Laplace noise, where d/scale is at most epsilon.
fn exact(moved: impl Iterator<Item = BigInt>, noise: &Noise, price: Price) -> (BigInt, BigInt) {
    match (noise, price) {
        (Noise::Gaussian(variance), Price::Rho(rho)) => {
            let squares: BigInt = moved.map(|d| &d * &d).sum();
            let (n, d) = (BigInt::from(variance.numerator().clone()), BigInt::from(variance.denominator().clone()));
            (squares * d * 500_000, n * rho.get())
        }
        (Noise::Laplace { numerator, denominator }, Price::Epsilon(micro)) => {
            let sum: BigUint = moved.map(|d| d.magnitude().clone()).sum();
            let [n, d] = [*numerator, *denominator].map(|digits| String::from(digits).parse::<BigInt>().unwrap());
            (BigInt::from(sum) * d * 1_000_000, n * micro)
        }
        (Noise::Gaussian(_), Price::Epsilon(_)) | (Noise::Laplace { .. }, Price::Rho(_)) => {
            panic!("noise of another price")
        }
    }
}

/// What a measure's price claims.
fn claim(price: Price, noise: &Noise) -> Claim {
    match price {
        Price::Epsilon(micro) => Claim::Pure(micro as f64 / 1e6),
        Price::Rho(rho) => {
            let (deviations, deviation) = ((2.0 * rho.as_rho()).sqrt(), noise.standard_deviation());
            // On few steps the lattice shows.
            if deviation > 1_000.0 {
                return Claim::Gaussian(deviations);
            }
            Claim::Steps { variance: deviation.powi(2), shift: (deviations * deviation).round() as i32 }
        }
    }
}

/// What the prices of all measures together claim.
fn whole(plan: &PrivatePlan, claims: &[Claim]) -> Claim {
    let prices = plan.parts()[0].measures().iter().map(|m| m.price);
    let (mut rho, mut epsilon) = (0.0, 0.0);
    for price in prices {
        match price {
            Price::Rho(of) => rho += of.as_rho(),
            Price::Epsilon(micro) => epsilon += micro as f64 / 1e6,
        }
    }
    let charged = plan.micro_rho().as_rho();
    assert!(rho <= charged && epsilon * epsilon / 2.0 <= charged * (1.0 + 1e-12), "more than is charged");
    match claims {
        [one] => *one,
        _ if epsilon > 0.0 => Claim::Pure(epsilon),
        _ => Claim::Gaussian((2.0 * rho).sqrt()),
    }
}

/// Counts and sums of rows far beyond k, all in one group.
const COUNTS: &str =
    "SELECT g, count(*), count(days), count(DISTINCT patient_id), sum(days), avg(days) FROM stay GROUP BY g";

#[tokio::test]
async fn counts_sums_and_means_hold_what_they_claim() {
    question(COUNTS, 6_000, ONE_GROUP).holds(100, &[0, 1, 3, 4]).await;
}

#[tokio::test]
async fn counts_sums_and_means_hold_what_they_claim_under_laplace_noise() {
    Question { laplace: true, finds: 1.25, ..question(COUNTS, 9_900, ONE_GROUP) }.holds(200, &[0, 1, 3, 4]).await;
}

/// In as many groups as count in full, and in twice as many.
const GROUPS: &str = "SELECT g, s, count(DISTINCT patient_id), sum(days) FROM stay GROUP BY g, s";

#[tokio::test]
async fn a_patient_in_many_groups_is_bounded() {
    question(GROUPS, 6_000, Target { groups: 3, ..ONE_GROUP }).holds(300, &[0]).await;
    Question { finds: 1.25, ..question(GROUPS, 4_000, Target { groups: 6, ..ONE_GROUP }) }.holds(400, &[]).await;
}

#[tokio::test]
async fn a_patient_in_many_groups_is_bounded_under_laplace_noise() {
    let sql = "SELECT g, s, count(DISTINCT patient_id) FROM stay GROUP BY g, s";
    let asked = question(sql, 6_200, Target { groups: 3, ..ONE_GROUP });
    Question { laplace: true, finds: 1.35, ..asked }.holds(500, &[0]).await;
}

#[tokio::test]
async fn variances_and_correlations_hold_what_they_claim() {
    let sql = "SELECT g, var_samp(days), covar_samp(days, other), corr(days, other) FROM stay GROUP BY g";
    question(sql, 6_000, ONE_GROUP).holds(600, &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]).await;
}

#[tokio::test]
async fn quantiles_and_extremes_hold_what_they_claim() {
    let sql = "SELECT g, median(level), min(level), max(level) FROM stay GROUP BY g";
    Question { finds: 1.25, ..question(sql, 4_000, ONE_GROUP) }.holds(700, &[0]).await;
}

/// Sums of 2^71 steps, where floats have steps of 2^19.
#[tokio::test]
async fn sums_beyond_the_digits_of_a_float_have_every_step() {
    question("SELECT g, sum(cost) FROM stay GROUP BY g", 10_000, ONE_GROUP).holds(800, &[0]).await;
}

/// A lattice of whole patients: noise of half a step.
#[tokio::test]
async fn a_table_with_one_row_a_patient_holds_what_it_claims() {
    question("SELECT g, count(*) FROM person GROUP BY g", 6_000, ONE_GROUP).holds(900, &[0]).await;
}

#[tokio::test]
async fn a_patient_in_two_joined_tables_is_bounded() {
    let sql = "SELECT v.g, count(*), sum(v.days), avg(d.dose) FROM stay v JOIN drug d ON d.patient_id = v.patient_id GROUP BY v.g";
    question(sql, 6_000, Target { rows: 4, groups: 1, drugs: 3 }).holds(1000, &[0, 1, 2, 3]).await;
    let sql = "SELECT p.g, count(*), sum(p.age) FROM person p JOIN stay v ON v.patient_id = p.patient_id GROUP BY p.g";
    question(sql, 6_000, ONE_GROUP).holds(1100, &[0, 1]).await;
}

/// An earlier run on the data without the patient helps nobody: noise is new in each.
#[tokio::test]
async fn two_runs_around_a_patients_arrival_hold_what_they_claim() {
    let asked = question("SELECT g, count(*) FROM stay GROUP BY g", 2_000, ONE_GROUP);
    let (plan, mut trials, _) = asked.neighbours(1200).await;
    for (arm, seed) in [(&mut trials.without, 1300), (&mut trials.with, 1301)] {
        let earlier = asked.of(&plan, false, seed).await;
        arm.iter_mut().zip(earlier).for_each(|(x, earlier)| x.extend(earlier));
    }
    let noise = trials.noise[0].clone();
    trials.noise.push(noise.clone());
    let claim = claim(plan.parts()[0].measures()[0].price, &noise);
    let mut wrong = trials.others(claim);
    wrong.extend(trials.likelihood("the later run", 0..1, claim));
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Names with as many patients as make the threshold a coin's toss, and names that one patient alone has.
#[tokio::test]
async fn names_of_a_private_key_hold_what_they_claim() {
    let (names, alone, base) = (1_500, 400, 6);
    let sql = "SELECT note, count(*), count(DISTINCT patient_id) FROM stay GROUP BY note";
    let asked = Question { delta: AttoDelta::MAX, ..question(sql, names / hospital::NAMES, ONE_GROUP) };
    let plan = asked.plan();
    let part = &plan.parts()[0];
    let mut arms = Vec::new();
    let mut strangers = 0;
    for (with, seed) in [(false, 1400), (true, 1401)] {
        let tables = hospital::named(&asked.schema(), asked.trials, base, alone, with);
        let release = asked.release(&plan, tables, seed).await;
        let header = &release.header().parts[0];
        // A name that did not come out has the least number there is.
        let absent = vec![i64::MIN.into(); part.measures().len() * hospital::NAMES];
        let mut trials = vec![absent; asked.trials];
        for (place, name) in header.names.as_ref().unwrap().iter().enumerate() {
            let Some(KeyValue::Text(name)) = name else { panic!("a name that nobody has") };
            let Some(name) = name.strip_prefix('n') else {
                strangers += 1;
                continue;
            };
            let name: usize = name.parse().unwrap();
            for (i, numbers) in release.parts()[0].iter().enumerate() {
                trials[name / hospital::NAMES][i * hospital::NAMES + name % hospital::NAMES] = numbers[place];
            }
        }
        arms.push(trials);
    }
    let shown = arms[0].iter().flatten().filter(|x| **x > i64::MIN.into()).count() / part.measures().len();
    assert!((names / 20..names * 19 / 20).contains(&shown), "{shown} of {names} names: no test of the threshold");
    // Each comes out with a probability of at most 0.001; six of 400 with one below 10^-4.
    assert!(strangers < 6, "{strangers} of {alone} names that one patient alone has");
    let noise = part.measures().iter().flat_map(|m| std::iter::repeat_n(part.noise(m).unwrap(), hospital::NAMES));
    let [without, with] = <[_; 2]>::try_from(arms).unwrap();
    let trials = Trials { without, with, noise: noise.collect() };
    let rho: f64 = plan.micro_rho().as_rho();
    let wrong = trials.others(Claim::But { deviations: (2.0 * rho).sqrt(), delta: plan.atto_delta().as_delta() });
    assert!(wrong.is_empty(), "{wrong:#?}");
    // Counted patients alone, at their own price.
    let patients = part.measures().iter().position(|m| matches!(m.quantity, Quantity::Patients { .. })).unwrap();
    let of = |arm: &[Vec<i128>]| {
        let numbers = |x: &Vec<i128>| x[patients * hospital::NAMES..][..hospital::NAMES].to_vec();
        arm.iter().map(numbers).collect::<Vec<_>>()
    };
    let noise = trials.noise[patients * hospital::NAMES..][..hospital::NAMES].to_vec();
    let trials = Trials { without: of(&trials.without), with: of(&trials.with), noise };
    let Price::Rho(rho) = part.measures()[patients].price else { panic!("private keys are for Gaussian noise") };
    let claim = Claim::But { deviations: (2.0 * rho.as_rho()).sqrt(), delta: plan.atto_delta().as_delta() };
    let wrong = trials.others(claim);
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The judge itself, on numbers whose distribution is known: a factor of 1.25 is found every time, what holds never.
#[test]
fn the_audit_finds_a_factor_of_five_quarters_and_accepts_what_holds() {
    let mut rng = StdRng::seed_from_u64(1);
    let mut normal = || {
        let (u, v): (f64, f64) = (1.0 - rng.random::<f64>(), rng.random());
        (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
    };
    let claim = Claim::Gaussian(2.0);
    // A deviation of 10^6 steps.
    let noise = Noise::Gaussian("1000000000000/1".parse().unwrap());
    for (factor, found) in [(1.0, false), (1.25, true), (0.8, false)] {
        for round in 0..20 {
            let mut arm = |shift: f64| (0..6_000).map(|_| vec![((normal() + shift) * 1e6) as i128]).collect::<Vec<_>>();
            let trials = Trials { without: arm(0.0), with: arm(2.0 * factor), noise: vec![noise.clone()] };
            let wrong = trials.likelihood("a number", 0..1, claim);
            assert_eq!(wrong.is_some(), found, "factor {factor}, round {round}: {wrong:?}");
        }
    }
}
