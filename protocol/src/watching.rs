//! What an operator's monitoring asks of a node or a coordinator on its own machine: `/metrics`, `/healthz`, `/readyz`.
//!
//! Promises: loopback only, `GET` only, within [`WITHIN`]; metrics are in the text format of Prometheus, version 0.0.4, which
//! `promtool check metrics` reads; `/healthz` says that the process answers, `/readyz` whether it can do its work now, check by
//! check. A request whose `Host` is not this machine's is refused.
//!
//! Deliberately absent: who the caller is (whoever is on the machine may look), and any number that tells of patients: what
//! is measured, its owner decides.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{Request, State},
    http::{HeaderValue, StatusCode, header},
    middleware::{Next, from_fn},
    response::{IntoResponse, Response},
    routing::get,
};
use prometheus::{IntGauge, IntGaugeVec, Opts, Registry, TextEncoder, core::Collector};
use serde_json::json;
use tokio::time::timeout;

use crate::loopback::{self, Running, is_meant, own_names};

/// How long an answer may take.
pub const WITHIN: Duration = Duration::from_secs(10);
/// The text format of Prometheus.
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// One thing that has to be well for the work to go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// Its stable name.
    pub name: &'static str,
    /// What is wrong; none when it is well.
    pub fault: Option<String>,
}

impl Check {
    /// The check `name`, with what is wrong.
    pub fn of<E: std::fmt::Display>(name: &'static str, result: Result<(), E>) -> Self {
        Self { name, fault: result.err().map(|fault| fault.to_string()) }
    }
}

/// A process that is watched.
pub trait Watched: Send + Sync + 'static {
    /// What it measures, as it is now.
    ///
    /// # Errors
    /// When it cannot be told.
    fn metrics(&self) -> impl Future<Output = Result<String, MetricsError>> + Send;

    /// What has to be well, in a fixed order.
    fn checks(&self) -> impl Future<Output = Vec<Check>> + Send;
}

/// Why there are no metrics.
#[derive(Debug, thiserror::Error)]
pub enum MetricsError {
    /// A name or a label is not as Prometheus has them.
    #[error("a metric cannot be written: {0}")]
    Form(#[from] prometheus::Error),
    /// The database, or a document in it.
    #[error("{0}")]
    State(String),
}

/// Numbers that are read when they are asked for, each a gauge or a counter of its own.
#[derive(Debug, Default)]
pub struct Reading(Registry);

impl Reading {
    /// A reading with a gauge that is always 1 and names the software's version.
    ///
    /// # Errors
    /// When the name is none.
    pub fn of(name: &str, version: &str) -> Result<Self, MetricsError> {
        let reading = Self::default();
        reading.family(name, "The software that runs; always 1.", ["version"], [([version], 1)])?;
        Ok(reading)
    }

    /// A gauge.
    ///
    /// # Errors
    /// When the name is none.
    pub fn gauge(&self, name: &str, help: &str, value: impl TryInto<i64>) -> Result<(), MetricsError> {
        let gauge = IntGauge::new(name, help)?;
        gauge.set(value.try_into().unwrap_or(i64::MAX));
        self.add(gauge)
    }

    /// A gauge for each value of these labels.
    ///
    /// # Errors
    /// When a name is none.
    pub fn family<'a, const N: usize>(
        &self,
        name: &str,
        help: &str,
        labels: [&str; N],
        values: impl IntoIterator<Item = ([&'a str; N], i64)>,
    ) -> Result<(), MetricsError> {
        let family = IntGaugeVec::new(Opts::new(name, help), &labels)?;
        for (label, value) in values {
            family.get_metric_with_label_values(&label)?.set(value);
        }
        self.add(family)
    }

    /// A counter, whose name ends in `_total`, for each value of these labels.
    ///
    /// # Errors
    /// When a name is none.
    pub fn counters<'a, const N: usize>(
        &self,
        name: &str,
        help: &str,
        labels: [&str; N],
        values: impl IntoIterator<Item = ([&'a str; N], u64)>,
    ) -> Result<(), MetricsError> {
        let family = prometheus::IntCounterVec::new(Opts::new(name, help), &labels)?;
        for (label, value) in values {
            family.get_metric_with_label_values(&label)?.inc_by(value);
        }
        self.add(family)
    }

    fn add(&self, collector: impl Collector + 'static) -> Result<(), MetricsError> {
        Ok(self.0.register(Box::new(collector))?)
    }

    /// The text of these numbers, after those that are counted in `counted` as they happen.
    ///
    /// # Errors
    /// When a value cannot be written.
    pub fn text(&self, counted: &Registry) -> Result<String, MetricsError> {
        let mut families = counted.gather();
        families.extend(self.0.gather());
        Ok(TextEncoder::new().encode_to_string(&families)?)
    }
}

/// Serves what `watched` tells at `address`, which is of loopback, until it is stopped.
///
/// # Errors
/// When the address is another one, or is taken.
pub async fn serve<W: Watched>(address: SocketAddr, watched: Arc<W>) -> io::Result<Running> {
    let running = loopback::serve(address, |address| router(watched, address)).await?;
    tracing::info!(address = %running.address(), "metrics and health are served");
    Ok(running)
}

fn router<W: Watched>(watched: Arc<W>, address: SocketAddr) -> Router {
    let hosts: Arc<[String]> = own_names(address).into();
    let meant = move |request: Request, next: Next| {
        let meant = is_meant(request.headers(), request.uri(), &hosts);
        async move {
            let elsewhere = (StatusCode::FORBIDDEN, "ask by the address that watch.address says\n");
            let asked = async { if meant { next.run(request).await } else { elsewhere.into_response() } };
            let late = (StatusCode::SERVICE_UNAVAILABLE, "no answer in time\n");
            let mut response = timeout(WITHIN, asked).await.unwrap_or_else(|_| late.into_response());
            response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
            response
        }
    };
    Router::new()
        .route("/metrics", get(metrics::<W>))
        .route("/healthz", get(async || (StatusCode::OK, "live\n")))
        .route("/readyz", get(ready::<W>))
        .with_state(watched)
        .layer(from_fn(meant))
}

async fn metrics<W: Watched>(State(watched): State<Arc<W>>) -> Response {
    match watched.metrics().await {
        Ok(text) => ([(header::CONTENT_TYPE, TEXT)], text).into_response(),
        Err(error) => {
            tracing::warn!(%error, "no metrics");
            (StatusCode::SERVICE_UNAVAILABLE, "no metrics; the log says why\n").into_response()
        }
    }
}

async fn ready<W: Watched>(State(watched): State<Arc<W>>) -> Response {
    let checks = watched.checks().await;
    let ready = checks.iter().all(|check| check.fault.is_none());
    let one = |check: &Check| match &check.fault {
        None => json!({"check": check.name, "ok": true}),
        Some(fault) => json!({"check": check.name, "ok": false, "fault": fault}),
    };
    let body = json!({"ready": ready, "checks": checks.iter().map(one).collect::<Vec<_>>()});
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, [(header::CONTENT_TYPE, "application/json")], format!("{body}\n")).into_response()
}
