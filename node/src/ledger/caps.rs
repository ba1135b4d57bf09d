//! What caps a charge: the study's earmark and its permit's totals, the register's lifetime caps, and a time window.
//!
//! A window tightens the other caps and raises none: whatever the order of charges and the hands of the clock, the
//! charges of any `days` days together are within its cap. At an instant the charges of the days before it count, and
//! those that lie after it too: a clock that was put back frees nothing.

use chrono::{DateTime, TimeDelta, Utc};
use sekisho_node_config::{Budget, Window};
use sekisho_protocol::{
    permit::Dp,
    units::{AttoDelta, MicroRho},
};
use sqlx::{Row, SqliteConnection};

use super::{LedgerError, statements::earmark_of};
use crate::store::{StoreError, instant, read_amount};

/// An amount of rho and an amount of delta.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// In micro-rho.
    pub micro_rho: MicroRho,
    /// In units of 10^-18.
    pub atto_delta: AttoDelta,
}

impl Cost {
    /// Nothing.
    pub const ZERO: Self = Self { micro_rho: MicroRho::ZERO, atto_delta: AttoDelta::ZERO };

    /// What a permit lets its study spend at each hospital.
    pub fn total_of(dp: &Dp) -> Self {
        Self { micro_rho: dp.micro_rho_total, atto_delta: dp.atto_delta_total }
    }

    /// What is left after `other`, never below zero.
    fn without(self, other: Self) -> Self {
        Self {
            micro_rho: self.micro_rho.saturating_sub(other.micro_rho),
            atto_delta: self.atto_delta.saturating_sub(other.atto_delta),
        }
    }
}

/// The hospital's caps on all studies together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caps {
    /// Ever.
    pub lifetime: Cost,
    /// In any period of so many days.
    pub window: Option<Window>,
}

impl From<&Budget> for Caps {
    fn from(budget: &Budget) -> Self {
        let lifetime = Cost { micro_rho: budget.lifetime, atto_delta: budget.lifetime_delta };
        Self { lifetime, window: budget.window }
    }
}

/// What is left before a charge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Left {
    /// Of the study's earmark, or of the permit's totals where they are lower.
    pub study: Cost,
    /// Of the lifetime caps.
    pub lifetime: Cost,
    /// Of the window's cap, in micro-rho.
    pub window: Option<MicroRho>,
}

/// What was charged before.
struct Spent {
    study: Cost,
    all: Cost,
    window: MicroRho,
}

/// Begins the window that ends at `now`: charges after it count.
fn begin(window: Window, now: DateTime<Utc>) -> DateTime<Utc> {
    now.checked_sub_signed(TimeDelta::days(window.days.into())).unwrap_or(DateTime::<Utc>::MIN_UTC)
}

/// What was charged in the window that ends at `now`, and after it, in micro-rho.
pub(super) async fn spent_in(
    connection: &mut SqliteConnection,
    window: Window,
    now: DateTime<Utc>,
) -> Result<MicroRho, LedgerError> {
    // Whole days from their totals, and of the day on which the window begins what came after its beginning: "U" follows
    // the "T" of every instant of that day.
    let spent: i64 = sqlx::query_scalar(
        "SELECT coalesce((SELECT sum(micro_rho) FROM charge_day WHERE day > substr(?1, 1, 10)), 0)
            + coalesce((SELECT sum(micro_rho) FROM charge
                WHERE charged_at > ?1 AND charged_at < substr(?1, 1, 10) || 'U'), 0)",
    )
    .bind(instant(begin(window, now)))
    .fetch_one(connection)
    .await?;
    Ok(read_amount(spent)?)
}

/// Reads a stored delta.
pub(super) fn read_delta(stored: i64) -> Result<AttoDelta, StoreError> {
    let atto = u64::try_from(stored).map_err(|_| StoreError::Corrupt("delta"))?;
    atto.try_into().map_err(|_| StoreError::Corrupt("delta"))
}

impl Caps {
    /// What is left at `now` before `cost` is charged to a study whose permit has these totals. For a consistent answer
    /// `connection` is in a transaction.
    pub(super) async fn affordable(
        &self,
        connection: &mut SqliteConnection,
        study_id: &str,
        permit_total: Cost,
        cost: Cost,
        now: DateTime<Utc>,
    ) -> Result<Left, LedgerError> {
        let earmark = earmark_of(connection, study_id).await?.unwrap_or(MicroRho::ZERO);
        let spent = self.spent(connection, study_id, now).await?;
        // A newer permit with a lower total lowers what is left; the earmark stays as it was.
        let total = Cost { micro_rho: earmark.min(permit_total.micro_rho), ..permit_total };
        let left = Left {
            study: total.without(spent.study),
            lifetime: self.lifetime.without(spent.all),
            window: self.window.map(|window| window.micro_rho.saturating_sub(spent.window)),
        };
        let (asked, asked_delta) = (cost.micro_rho, cost.atto_delta);
        if asked > left.study.micro_rho {
            return Err(LedgerError::Study { left: left.study.micro_rho, asked });
        }
        if asked_delta > left.study.atto_delta {
            return Err(LedgerError::StudyDelta { left: left.study.atto_delta, asked: asked_delta });
        }
        if asked > left.lifetime.micro_rho {
            return Err(LedgerError::Lifetime { left: left.lifetime.micro_rho, asked });
        }
        if asked_delta > left.lifetime.atto_delta {
            return Err(LedgerError::LifetimeDelta { left: left.lifetime.atto_delta, asked: asked_delta });
        }
        // Last: nobody is told to wait for what would be refused all the same.
        if let (Some(window), Some(left)) = (self.window, left.window)
            && asked > left
        {
            return Err(LedgerError::Window { left, asked, days: window.days });
        }
        Ok(left)
    }

    async fn spent(
        &self,
        connection: &mut SqliteConnection,
        study_id: &str,
        now: DateTime<Utc>,
    ) -> Result<Spent, LedgerError> {
        let row = sqlx::query(
            "SELECT coalesce(sum(spent) FILTER (WHERE study_id = ?1), 0) AS study_rho,
                coalesce(sum(spent_delta) FILTER (WHERE study_id = ?1), 0) AS study_delta,
                coalesce(sum(spent), 0) AS all_rho,
                coalesce(sum(spent_delta), 0) AS all_delta
            FROM study",
        )
        .bind(study_id)
        .fetch_one(&mut *connection)
        .await?;
        let cost = |rho, delta| -> Result<Cost, LedgerError> {
            Ok(Cost { micro_rho: read_amount(row.try_get(rho)?)?, atto_delta: read_delta(row.try_get(delta)?)? })
        };
        let window = match self.window {
            Some(window) => spent_in(connection, window, now).await?,
            None => MicroRho::ZERO,
        };
        Ok(Spent { study: cost("study_rho", "study_delta")?, all: cost("all_rho", "all_delta")?, window })
    }
}
