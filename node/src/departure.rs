//! When an answer leaves: at one of two times that the request and the configuration fix, so that how long a query took
//! tells one bit at most.
//!
//! A question that reads more has more time until the first of them, by a class that its public plan alone decides: else what
//! is large would always miss it, and what is between would tell by missing it. Cells and noise take no part in it: the most
//! that a release may have are drawn in a tenth of a second.

use std::time::Duration;

use datafusion::{common::tree_node::TreeNodeRecursion, logical_expr::LogicalPlan};
use sekisho_aggregation::plan::PrivatePlan;
use tokio::time::Instant;

/// When what was asked is answered, counted from its arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Departure {
    /// After `step` if the answer is ready by then, otherwise after `latest`; nowhere between.
    Fixed {
        /// The early time.
        step: Duration,
        /// The late time; every run has ended before it.
        latest: Duration,
    },
    /// As soon as it is ready: for benchmarks and tests within one process. No configuration says it.
    AtOnce,
}

impl Departure {
    /// At `step`, or `step` after `timeout`, by which every run has ended.
    pub fn fixed(step: Duration, timeout: Duration) -> Self {
        Self::Fixed { step, latest: timeout.saturating_add(step) }
    }

    /// The same for a question with this plan: the step is longer by its class, and never beyond the late time.
    pub fn of(self, plan: &PrivatePlan) -> Self {
        self.of_class(size_class(plan))
    }

    fn of_class(self, class: u32) -> Self {
        match self {
            Self::Fixed { step, latest } => Self::Fixed { step: step.saturating_mul(class).min(latest), latest },
            Self::AtOnce => self,
        }
    }

    /// How long after its arrival an answer leaves that is `ready` so long after it.
    fn leaves(self, ready: Duration) -> Duration {
        match self {
            Self::Fixed { step, .. } if ready <= step => step,
            // A disk that stands still can make it later; rows cannot.
            Self::Fixed { latest, .. } => latest.max(ready),
            Self::AtOnce => ready,
        }
    }

    /// Waits until an answer that is ready now, to what arrived at `arrived`, may leave.
    pub async fn wait(self, arrived: Instant) {
        tokio::time::sleep_until(arrived + self.leaves(arrived.elapsed())).await;
    }
}

/// How often a plan reads a table, views put in place, rounded up to a power of two.
fn size_class(plan: &PrivatePlan) -> u32 {
    let mut scans = 0_u32;
    for part in plan.parts() {
        // The closure never fails, so neither does the walk.
        let _ = part.rows().apply_with_subqueries(|node| {
            scans += u32::from(matches!(node, LogicalPlan::TableScan(_)));
            Ok(TreeNodeRecursion::Continue)
        });
    }
    scans.max(1).next_power_of_two()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_reads_more_has_more_time_and_never_more_than_the_late_time() {
        let (step, latest) = (Duration::from_secs(2), Duration::from_secs(62));
        for (class, expect) in [(1, 2), (2, 4), (8, 16), (16, 32), (32, 62), (512, 62)] {
            let expect = Departure::Fixed { step: Duration::from_secs(expect), latest };
            assert_eq!(Departure::Fixed { step, latest }.of_class(class), expect, "{class}");
        }
        assert_eq!(Departure::AtOnce.of_class(8), Departure::AtOnce);
    }

    #[test]
    fn an_answer_leaves_at_the_step_or_after_the_time_limit_and_nowhere_between() {
        let fixed = Departure::fixed(Duration::from_millis(2000), Duration::from_secs(60));
        for (ready, leaves) in [
            (0, 2000),
            (1999, 2000),
            (2000, 2000),
            (2001, 62_000),
            (30_000, 62_000),
            (61_999, 62_000),
            (62_001, 62_001),
        ] {
            let ready = Duration::from_millis(ready);
            assert_eq!(fixed.leaves(ready), Duration::from_millis(leaves), "{ready:?}");
            assert_eq!(Departure::AtOnce.leaves(ready), ready);
        }
    }
}
