//! When an answer leaves: at one of two times that the request and the configuration fix, so that how long a query took
//! tells one bit at most.

use std::time::Duration;

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

#[cfg(test)]
mod tests {
    use super::*;

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
