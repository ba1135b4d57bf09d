//! What one page of the committee or of a data user takes at most: rows of a table, and processor time beside others'.

use sekisho_protocol::pages::Fault;
use tokio::sync::{Semaphore, SemaphorePermit};

/// The most rows of a table on a page; files have all.
pub const MOST_ROWS: usize = 500;

/// How many pages plan queries at once; queries that hospitals answer have places of their own.
static PLANNING: Semaphore = Semaphore::const_new(2);

/// A place among the pages that plan queries; whoever waits longer than a request may take gets none.
///
/// # Errors
/// Never, as long as nobody closes the semaphore.
pub async fn place() -> Result<SemaphorePermit<'static>, Fault> {
    PLANNING.acquire().await.map_err(Fault::unavailable)
}
