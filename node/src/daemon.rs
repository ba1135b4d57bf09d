//! The node's process: opens its state, dials the coordinator, answers until it is told to stop.

use std::{
    fs::DirBuilder,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use chrono::{DateTime, Utc};
use sekisho_aggregation::accounting::{CeilingError, Ceilings};
use sekisho_node_config::NodeConfig;
use sekisho_protocol::{
    clock::Clock,
    key_file,
    transport::{Limits, Multiaddr, Network, PeerId, Role, TransportError, server_builder},
};
use tracing::info;

use crate::{
    answer::Answering,
    data::snapshot::{Progress, Settings},
    departure::Departure,
    documents::Documents,
    guard::Trust,
    holding::{DataSet, HoldingError},
    hooks::Hooks,
    ledger::{Caps, Ledger},
    link,
    local::{self, Local, TokenFile, TokenFileError},
    register::Register,
    service,
    slots::{RunLocks, Slots},
    store::{Store, StoreError},
};

/// Why a node does not run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A key file.
    #[error(transparent)]
    Key(#[from] key_file::KeyFileError),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A data set.
    #[error("data set {path}: {source}", path = path.display())]
    Data {
        /// Its mapping file.
        path: PathBuf,
        /// What is wrong.
        source: HoldingError,
    },
    /// A lifetime budget is above the compiled-in ceiling.
    #[error("budget.{key}: {source}")]
    Ceiling {
        /// The key in the configuration's table `budget`.
        key: &'static str,
        /// What is allowed.
        source: CeilingError,
    },
    /// An address or peer id of the configuration.
    #[error("coordinator.{0} of the configuration cannot be read")]
    Coordinator(&'static str),
    /// The network.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The Flight server.
    #[error("the Flight server stopped: {0}")]
    Server(#[from] tonic::transport::Error),
    /// The tokens of the local endpoint.
    #[error(transparent)]
    Tokens(#[from] TokenFileError),
    /// The local endpoint cannot listen.
    #[error("local.address {address}: {source}")]
    Local {
        /// Its address.
        address: std::net::SocketAddr,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The disk.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// What was written.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
}

/// The operating system's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place where a node reads the clock")]
    fn now(&self) -> DateTime<Utc> {
        Utc::now()
    }
}

/// Makes a folder that its owner alone may open, and its parents.
///
/// # Errors
/// When the disk says no.
pub fn private_folder(path: &Path) -> std::io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// The node's database of `config`.
///
/// # Errors
/// When it cannot be opened.
pub async fn store(config: &NodeConfig) -> Result<Store, RunError> {
    let io = |source| RunError::Io { path: config.state_dir.clone(), source };
    private_folder(&config.state_dir).map_err(io)?;
    Ok(Store::open(&config.state_dir.join("node.db")).await?)
}

/// The data sets of `config`, with a snapshot each.
///
/// # Errors
/// When a mapping or a snapshot is not as it must be.
pub async fn data(
    config: &NodeConfig,
    progress: &(dyn Fn(Progress<'_>) + Sync),
    clock: &dyn Clock,
) -> Result<Vec<Arc<DataSet>>, RunError> {
    let mut sets = Vec::new();
    for path in &config.datasets {
        let snapshots = config.state_dir.join("snapshots");
        let (governance, max_rows) = (&config.trust.governance_key, config.limits.max_rows);
        let settings = Settings::with_memory(config.snapshots.memory_bytes);
        let set = DataSet::open(path, governance, &snapshots, &settings, progress, clock.now(), max_rows).await;
        sets.push(Arc::new(set.map_err(|source| RunError::Data { path: path.clone(), source })?));
    }
    Ok(sets)
}

/// Checks the lifetime caps against the ceilings: the higher ones only where every data set is declared synthetic.
fn check_ceilings(config: &NodeConfig, data: &[Arc<DataSet>]) -> Result<(), RunError> {
    let synthetic = !data.is_empty() && data.iter().all(|set| set.synthetic());
    let ceilings = if synthetic { Ceilings::SYNTHETIC } else { Ceilings::PATIENTS };
    let above = |key| move |source| RunError::Ceiling { key, source };
    ceilings.check_lifetime(config.budget.lifetime).map_err(above("lifetime_micro_rho"))?;
    ceilings.check_lifetime_delta(config.budget.lifetime_delta).map_err(above("lifetime_atto_delta"))
}

/// Everything that answering needs, from the configuration.
///
/// # Errors
/// When keys, database, data or budget are not as they must be.
pub async fn answering(
    config: &NodeConfig,
    progress: &(dyn Fn(Progress<'_>) + Sync),
    clock: Arc<dyn Clock>,
    hooks: Hooks,
) -> Result<Answering, RunError> {
    let store = store(config).await?;
    let data = data(config, progress, &*clock).await?;
    check_ceilings(config, &data)?;
    Ok(Answering {
        trust: Trust {
            name: config.name.clone(),
            coordinator_peer: config.coordinator.peer_id.clone(),
            committee: config.trust.committee.clone(),
            max_micro_rho_per_query: config.budget.per_query,
            max_atto_delta_per_query: config.budget.delta_per_query,
        },
        own_rule: config.register,
        ledger: Ledger::new(store.clone(), Caps::from(&config.budget)),
        register: Register::new(store.clone()),
        documents: Documents::new(store, config.trust.governance_key),
        data,
        signing: Arc::new(key_file::read(&config.signing_key)?),
        clock,
        timeout: config.limits.query_timeout,
        memory_bytes: usize::try_from(config.limits.memory_bytes).unwrap_or(usize::MAX),
        departure: Departure::fixed(config.limits.answer_step, config.limits.query_timeout),
        slots: Slots::new(config.limits.max_concurrent_queries),
        hooks,
        locks: RunLocks::default(),
    })
}

/// Runs the node until it is told to stop; `ready` is called with its peer id once it dials.
///
/// # Errors
/// When it cannot start, or its server fails.
pub async fn run(
    config: NodeConfig,
    progress: &(dyn Fn(Progress<'_>) + Sync),
    clock: Arc<dyn Clock>,
    hooks: Hooks,
    ready: impl FnOnce(PeerId),
) -> Result<(), RunError> {
    let node = Arc::new(answering(&config, progress, clock, hooks).await?);
    let peer: PeerId = config.coordinator.peer_id.parse().map_err(|_| RunError::Coordinator("peer_id"))?;
    let addr: Multiaddr = config.coordinator.address.parse().map_err(|_| RunError::Coordinator("address"))?;
    let transport = key_file::read(&config.transport_key)?.seed();
    let endpoint = endpoint(&config, &node).await?;
    let (network, incoming) = Network::start(transport, Role::Dial { peer, addr }, Limits::default()).await?;
    ready(network.local_peer());
    info!(name = %config.name, peer = %network.local_peer(), "node runs");
    let link = tokio::spawn(link::keep(network.clone(), peer, Arc::clone(&node)));
    server_builder().add_service(service::server(node)).serve_with_incoming_shutdown(incoming.flight, stop()).await?;
    link.abort();
    if let Some(endpoint) = endpoint {
        endpoint.stop().await;
    }
    network.shutdown().await;
    Ok(())
}

/// The endpoint for the hospital's own systems, where the configuration asks for one.
async fn endpoint(config: &NodeConfig, node: &Answering) -> Result<Option<local::Running>, RunError> {
    let Some(sekisho_node_config::Local { address, token_file }) = &config.local else { return Ok(None) };
    let tokens = TokenFile::new(token_file);
    tokens.names()?;
    let routes = local::router(Arc::new(Local::new(node, tokens)));
    let running = local::serve(*address, routes).await;
    running.map(Some).map_err(|source| RunError::Local { address: *address, source })
}

/// Ends when the process is told to stop.
async fn stop() {
    use tokio::signal::unix::{SignalKind, signal};
    match signal(SignalKind::terminate()) {
        Ok(mut terminate) => {
            tokio::select! { _ = terminate.recv() => {}, _ = tokio::signal::ctrl_c() => {} }
        }
        Err(_) => drop(tokio::signal::ctrl_c().await),
    }
    info!("stopping");
}
