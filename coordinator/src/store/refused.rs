//! What the coordinator refused to ask hospitals, of what a person of some permit really signed.
//!
//! Promises: counted by day, kind, code, study and person, so that repeating a request grows nothing; at most [`MAX_ROWS`] rows a
//! day. Deliberately absent: the SQL and the words of the refusal, which may quote it.

use chrono::{DateTime, Utc};
use sekisho_protocol::{digest::Digest, refusal::Code};
use sqlx::Row;

use super::{Store, StoreError, instant, read_digest, read_instant};

/// The most rows of one day: what comes after them is not counted.
const MAX_ROWS: u32 = 10_000;

/// What was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// An answer, which costs.
    Query,
    /// What an answer would cost.
    DryRun,
}

impl Request {
    /// The name in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Query => "query",
            Self::DryRun => "dry_run",
        }
    }
}

/// Requests of one day, person and study that were refused for the same reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedRequest {
    /// What was asked for.
    pub request: Request,
    /// Why not.
    pub code: Code,
    /// The study; empty when the permit is not known here.
    pub study: String,
    /// The fingerprint of the key that signed.
    pub person: Digest,
    /// How often, that day.
    pub times: u64,
    /// The first time.
    pub first: DateTime<Utc>,
    /// The last time.
    pub last: DateTime<Utc>,
}

impl Store {
    /// Counts a refused request.
    pub(crate) async fn note_refused(
        &self,
        request: Request,
        code: Code,
        study: &str,
        person: Digest,
        at: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        let day = at.date_naive().to_string();
        let mut tx = self.write().await?;
        let counted = sqlx::query(
            "UPDATE refused_request SET times = times + 1, last_at = ?6
            WHERE day = ?1 AND kind = ?2 AND code = ?3 AND study = ?4 AND person = ?5",
        );
        let counted = counted
            .bind(&day)
            .bind(request.as_str())
            .bind(code.as_str())
            .bind(study)
            .bind(person.as_bytes().as_slice())
            .bind(instant(at))
            .execute(&mut *tx)
            .await?;
        if counted.rows_affected() == 0 {
            sqlx::query(
                "INSERT INTO refused_request (day, kind, code, study, person, times, first_at, last_at)
                SELECT ?1, ?2, ?3, ?4, ?5, 1, ?6, ?6
                WHERE (SELECT count(*) FROM refused_request WHERE day = ?1) < ?7",
            )
            .bind(&day)
            .bind(request.as_str())
            .bind(code.as_str())
            .bind(study)
            .bind(person.as_bytes().as_slice())
            .bind(instant(at))
            .bind(MAX_ROWS)
            .execute(&mut *tx)
            .await?;
        }
        Ok(tx.commit().await?)
    }

    /// What was refused, the latest first; `most` rows at most.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn refused_requests(&self, most: u32) -> Result<Vec<RefusedRequest>, StoreError> {
        let sql = "SELECT kind, code, study, person, times, first_at, last_at FROM refused_request
            ORDER BY last_at DESC, kind, code, study, person LIMIT ?1";
        let corrupt = || StoreError::Corrupt("refused request");
        let read = |row: &sqlx::sqlite::SqliteRow| {
            let kind: &str = row.try_get("kind")?;
            let request = [Request::Query, Request::DryRun].into_iter().find(|request| request.as_str() == kind);
            Ok(RefusedRequest {
                request: request.ok_or_else(corrupt)?,
                code: row.try_get::<&str, _>("code")?.parse().map_err(|_| corrupt())?,
                study: row.try_get("study")?,
                person: read_digest(row.try_get("person")?)?,
                times: row.try_get::<i64, _>("times")?.unsigned_abs(),
                first: read_instant(row.try_get("first_at")?)?,
                last: read_instant(row.try_get("last_at")?)?,
            })
        };
        sqlx::query(sql).bind(most).fetch_all(&self.pool).await?.iter().map(read).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_repeated_request_is_counted_in_one_row_a_day() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("coordinator.db")).await.unwrap();
        let at = |text: &str| text.parse::<DateTime<Utc>>().unwrap();
        let (ann, bob) = (Digest::of(b"ann"), Digest::of(b"bob"));
        for (request, code, person, time) in [
            (Request::Query, Code::BudgetQuery, ann, "2026-01-01T10:00:00Z"),
            (Request::Query, Code::BudgetQuery, ann, "2026-01-01T23:59:59Z"),
            (Request::Query, Code::BudgetQuery, ann, "2026-01-02T00:00:00Z"),
            (Request::DryRun, Code::BudgetQuery, ann, "2026-01-02T01:00:00Z"),
            (Request::Query, Code::PermitExpired, bob, "2026-01-02T02:00:00Z"),
        ] {
            store.note_refused(request, code, "study-1", person, at(time)).await.unwrap();
        }
        let found = store.refused_requests(99).await.unwrap();
        let rows: Vec<_> = found.iter().map(|r| (r.request, r.code, r.person, r.times, r.first.to_rfc3339())).collect();
        assert_eq!(
            rows,
            [
                (Request::Query, Code::PermitExpired, bob, 1, "2026-01-02T02:00:00+00:00".into()),
                (Request::DryRun, Code::BudgetQuery, ann, 1, "2026-01-02T01:00:00+00:00".into()),
                (Request::Query, Code::BudgetQuery, ann, 1, "2026-01-02T00:00:00+00:00".into()),
                (Request::Query, Code::BudgetQuery, ann, 2, "2026-01-01T10:00:00+00:00".into()),
            ]
        );
        assert_eq!(store.refused_requests(1).await.unwrap().len(), 1);
    }
}
