//! What everybody sees: the register of uses, studies, releases with their lineage, and the log.
//!
//! Promises: what is here is in the use register, in signed receipts, or in the log; persons are not named; of a result that waits
//! for its reviewers, or was refused, only that is shown. Deliberately absent: any released value, outside a bundle of a study
//! whose results were published.

mod lineage;
mod log;
mod picture;
mod register;
mod release;
mod study;

use std::{borrow::Borrow, sync::Arc, time::Duration};

use axum::{Extension, Router, routing::get};
use sekisho_protocol::pages::Fault;
use tokio::{sync::Mutex, time::Instant};

use super::Pages;
use crate::use_register::{self, QueryEntry, Use, UseRegister};

/// For how long a register is shown: it is made of all documents and receipts, and anybody may ask.
const FRESH: Duration = Duration::from_secs(1);

/// The routes.
pub fn routes() -> Router<Arc<Pages>> {
    Router::new()
        .route("/", get(register::page))
        .route("/studies/{study}", get(study::page))
        .route("/releases/{result}", get(release::page))
        .route("/releases/{result}/lineage.svg", get(release::lineage))
        .route("/releases/{result}/bundle.zip", get(release::bundle))
        .route("/log", get(log::page))
        .route("/log/policy", get(log::policy))
        .route("/log/{*path}", get(log::file))
        .layer(Extension(Arc::new(Latest::default())))
}

/// The register as it was a moment ago; one is made at a time.
#[derive(Default)]
struct Latest(Mutex<Option<(Instant, Arc<UseRegister>)>>);

impl Latest {
    async fn register(&self, pages: &Pages) -> Result<Arc<UseRegister>, Fault> {
        let mut kept = self.0.lock().await;
        if let Some((made, register)) = &*kept
            && made.elapsed() < FRESH
        {
            return Ok(register.clone());
        }
        let register = use_register::export(&pages.documents, &pages.store, None, pages.clock.now()).await;
        let register = Arc::new(register.map_err(Fault::unavailable)?);
        *kept = Some((Instant::now(), register.clone()));
        Ok(register)
    }
}

/// The look of a state's chip. The chip says the state in words.
fn chip(code: &str) -> &'static str {
    match code {
        "in_force" | "granted" | "accepted" | "released" | "automatic" | "answered" | "release" => "chip chip-ok",
        "under_review" | "not_yet_valid" | "waiting" | "awaiting" | "no_answer" | "offline" => "chip chip-wait",
        "refused" | "refuse" | "revoked" | "suspended" | "without_quorum" => "chip chip-stop",
        _ => "chip",
    }
}

/// Rho from micro-rho, as a decimal number without trailing zeros.
fn rho(micro: impl Borrow<u64>) -> String {
    let micro = micro.borrow();
    let text = format!("{}.{:06}", micro / 1_000_000, micro % 1_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_string()
}

/// Whether a result may be spoken of beyond where it stands.
fn is_open(query: &QueryEntry) -> bool {
    ["automatic", "released"].contains(&query.output.code.as_str())
}

/// Whether the results of a use were published.
fn is_published(used: &Use) -> bool {
    used.publications.iter().any(|publication| publication.what == "results")
}

#[cfg(test)]
mod tests;
