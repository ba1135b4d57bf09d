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
    dsse::Envelope,
    key_file,
    log::entry::Kind,
    record::PolicyRecord,
    refusal::Refusal,
    token_file::{TokenFile, TokenFileError},
    transport::{Limits, Multiaddr, Network, PeerId, Role, TransportError, server_builder},
    watching,
};
use tokio::sync::watch;
use tracing::{info, warn};

use crate::{
    answer::{Answering, SOFTWARE},
    catalogue::Shelf,
    console::{self, Console},
    data::snapshot::{Progress, Settings},
    departure::Departure,
    documents::{Anchors, Documents},
    guard::Trust,
    holding::{DataSet, HoldingError},
    hooks::Hooks,
    keys::{Dialling, KeyFiles, Signing, follow},
    ledger::{Caps, Ledger},
    link,
    local::{self, Local},
    log::Standing,
    policy::{Policy, PolicyError},
    register::Register,
    seeds::SeedKey,
    service,
    slots::{RunLocks, Slots},
    store::{Store, StoreError},
    watch::{Scrape, Watch, WatchError},
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
    /// The signed documents.
    #[error(transparent)]
    Documents(#[from] Refusal),
    /// A data set.
    #[error("data set {path}: {source}", path = path.display())]
    Data {
        /// Its mapping file.
        path: PathBuf,
        /// What is wrong.
        source: HoldingError,
    },
    /// The hospital's policy.
    #[error(transparent)]
    Policy(#[from] PolicyError),
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
    /// The console cannot listen.
    #[error("console.address {address}: {source}")]
    Console {
        /// Its address.
        address: std::net::SocketAddr,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// Metrics and health cannot be served.
    #[error("watch.address {address}: {source}")]
    WatchAddress {
        /// Their address.
        address: std::net::SocketAddr,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The rules cannot go on from what they counted.
    #[error(transparent)]
    Watch(#[from] WatchError),
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

/// Where the node's database of `config` is.
pub fn database(config: &NodeConfig) -> PathBuf {
    config.state_dir.join("node.db")
}

/// The node's database of `config`.
///
/// # Errors
/// When it cannot be opened.
pub async fn store(config: &NodeConfig) -> Result<Store, RunError> {
    let io = |source| RunError::Io { path: config.state_dir.clone(), source };
    private_folder(&config.state_dir).map_err(io)?;
    Ok(Store::open(&database(config)).await?)
}

/// The node's documents of `config`.
///
/// # Errors
/// When its database cannot be opened.
pub async fn documents(config: &NodeConfig) -> Result<Documents, RunError> {
    Ok(Documents::new(store(config).await?, Anchors::from(&config.trust)))
}

/// The data sets of `config`, with a snapshot each.
///
/// # Errors
/// When a mapping or a snapshot is not as it must be.
pub async fn data(
    config: &NodeConfig,
    documents: &Documents,
    progress: &(dyn Fn(Progress<'_>) + Sync),
    clock: &dyn Clock,
) -> Result<Vec<Arc<DataSet>>, RunError> {
    let (mut sets, governance) = (Vec::new(), documents.schema_keys().await?);
    for path in &config.datasets {
        let snapshots = config.state_dir.join("snapshots");
        let max_rows = config.limits.max_rows;
        let settings = Settings::with_memory(config.snapshots.memory_bytes);
        let set = DataSet::open(path, &governance, &snapshots, &settings, progress, clock.now(), max_rows).await;
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
    let policy = Policy::load(&config.policy)?;
    for warning in policy.warnings() {
        warn!(%warning, "the policy");
    }
    let store = store(config).await?;
    let documents = Documents::new(store.clone(), Anchors::from(&config.trust));
    let data = data(config, &documents, progress, &*clock).await?;
    policy.check_names(&data.iter().map(|set| set.facts()).collect::<Vec<_>>())?;
    check_ceilings(config, &data)?;
    let ledger = Ledger::new(store.clone(), Caps::from(&config.budget));
    let signing = Arc::new(Signing::from(key_file::read(&config.signing_key)?));
    let watch =
        Watch::open(&config.name, config.watch, ledger.clone(), Arc::clone(&signing), Arc::clone(&clock)).await?;
    Ok(Answering {
        trust: Trust {
            name: config.name.clone(),
            coordinator_peer: config.coordinator.peer_id.clone(),
            max_micro_rho_per_query: config.budget.per_query,
            max_atto_delta_per_query: config.budget.delta_per_query,
            exact_min_patients: config.exact.map(|exact| exact.min_patients),
        },
        policy,
        own_rule: config.register,
        ledger,
        register: Register::new(store.clone()),
        shelf: Shelf::new(store.clone()),
        documents,
        data,
        signing,
        seeds: Arc::new(SeedKey::read_or_make(&SeedKey::path_beside(&config.signing_key))?),
        clock,
        timeout: config.limits.query_timeout,
        memory_bytes: usize::try_from(config.limits.memory_bytes).unwrap_or(usize::MAX),
        departure: Departure::fixed(config.limits.answer_step, config.limits.query_timeout),
        slots: Slots::new(config.limits.max_concurrent_queries),
        hooks,
        locks: RunLocks::default(),
        watch,
        standing: Standing::default(),
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
    let files = KeyFiles {
        name: config.name.clone(),
        signing: config.signing_key.clone(),
        transport: config.transport_key.clone(),
    };
    if let Ok(roster) = documents(&config).await?.roster(clock.now()).await {
        files.settle(&roster)?;
    }
    let node = Arc::new(answering(&config, progress, clock, hooks).await?);
    enter_policy(&node).await?;
    let peer: PeerId = config.coordinator.peer_id.parse().map_err(|_| RunError::Coordinator("peer_id"))?;
    let addr: Multiaddr = config.coordinator.address.parse().map_err(|_| RunError::Coordinator("address"))?;
    let endpoint = endpoint(&config, &node).await?;
    let looked_after = looked_after(&config, &node).await?;
    let watched = watched(&config, &node).await?;
    let counting = tokio::spawn(Arc::clone(&node.watch).keep());
    let (told, stopping) = watch::channel(false);
    tokio::spawn(async move {
        stop().await;
        told.send_replace(true);
    });
    let (mut dialling, mut ready) = (Dialling::Current, Some(ready));
    // One turn for each transport key that is tried; nearly always the only one.
    while !*stopping.borrow() {
        let (transport, role) = (files.transport(dialling)?.seed(), Role::Dial { peer, addr: addr.clone() });
        let (network, incoming) = Network::start(transport, role, Limits::default()).await?;
        if let Some(ready) = ready.take() {
            ready(network.local_peer());
        }
        info!(name = %config.name, peer = %network.local_peer(), "node runs");
        let link = tokio::spawn(link::keep(network.clone(), peer, Arc::clone(&node)));
        let strangers = tokio::spawn(Arc::clone(&node.watch).strangers(network.clone()));
        let (mut stopped, turn) = (stopping.clone(), tokio::sync::Notify::new());
        let server = server_builder().add_service(service::server(Arc::clone(&node)));
        let serving = server.serve_with_incoming_shutdown(incoming.flight, async {
            tokio::select! { _ = stopped.wait_for(|stop| *stop) => {}, () = turn.notified() => {} }
        });
        let other = async {
            let next = follow(&files, &node.documents, &node.signing, &network, peer, dialling, &*node.clock).await;
            turn.notify_one();
            dialling = next;
            info!("not let in with this transport key; trying the other one");
            std::future::pending::<()>().await;
        };
        tokio::select! { served = serving => served?, () = other => {} }
        link.abort();
        strangers.abort();
        network.shutdown().await;
    }
    for running in [endpoint, looked_after, watched].into_iter().flatten() {
        running.stop().await;
    }
    counting.abort();
    node.watch.write_down().await.map_err(WatchError::from)?;
    Ok(())
}

/// Enters the policy in the log, unless the newest entry of one has the same text and software.
async fn enter_policy(node: &Answering) -> Result<(), RunError> {
    let (name, policy) = (node.trust.name.clone(), node.policy.text().to_string());
    let record = PolicyRecord { node: name, policy, software: SOFTWARE.into(), at: node.clock.now() };
    let envelope = Envelope::sign(&record, &[&node.signing]).map_err(Refusal::from)?;
    let same = |newest: &[u8]| {
        let newest = Envelope::from_json::<PolicyRecord>(newest).and_then(|envelope| envelope.peek::<PolicyRecord>());
        newest.is_ok_and(|(newest, _)| PolicyRecord { at: record.at, ..newest } == record)
    };
    node.ledger.log().append_when_new(Kind::Policy, &envelope.to_json(), same).await?;
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

/// The console, where the configuration asks for one.
async fn looked_after(config: &NodeConfig, node: &Arc<Answering>) -> Result<Option<local::Running>, RunError> {
    let Some(sekisho_node_config::Console { address, token_file }) = &config.console else { return Ok(None) };
    let tokens = TokenFile::new(token_file);
    tokens.names()?;
    let gate = console::gate(tokens, Arc::clone(&node.clock));
    let running = console::serve(*address, Arc::new(Console::new(Arc::clone(node), &config.file)), gate).await;
    running.map(Some).map_err(|source| RunError::Console { address: *address, source })
}

/// Metrics and health, where the configuration asks for them.
async fn watched(config: &NodeConfig, node: &Arc<Answering>) -> Result<Option<local::Running>, RunError> {
    let Some(address) = config.watch.address else { return Ok(None) };
    let running = watching::serve(address, Arc::new(Scrape::of(Arc::clone(node)))).await;
    running.map(Some).map_err(|source| RunError::WatchAddress { address, source })
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
