//! The running coordinator: what is started in which order, and stopped in the reverse one.
//!
//! Promises: one coordinator per state directory; what an earlier process left running is marked before anything is
//! asked; on a stop, open calls have [`GRACE`] to end, and what is cut off then is on disk as far as it came.

use std::{
    fmt, fs, io,
    net::SocketAddr,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use chrono::{DateTime, Utc};
use sekisho_protocol::{
    clock::Clock,
    key_file::{self, KeyFileError},
    keys::{PublicKey, SecretKey},
    log::policy::{Policy, PolicyError},
    loopback::Running,
    roster::Role,
    transport::{Multiaddr, TransportError, peer_id_of_seed},
    watching,
};
use tokio::{sync::watch, task::JoinHandle, time::timeout};
use tonic::transport::Identity;

use crate::{
    bundle,
    config::{Config, Tls},
    documents::{Documents, DocumentsError},
    door::{self, Door},
    network::Nodes,
    pages::{self, Pages, PagesError},
    round::{RoundParts, Rounds},
    store::{Store, StoreError},
    tiles::{self, Tiles},
    watch::{Parts, Scrape},
    witnesses::Witnesses,
};

/// How long open calls may take to end after a stop.
pub const GRACE: Duration = Duration::from_secs(10);

/// The clock on the wall.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place where the daemon reads the time")]
    fn now(&self) -> DateTime<Utc> {
        Utc::now()
    }
}

/// Called at named points of a round, so that a test can stop the process there.
#[derive(Clone)]
pub struct Hooks {
    /// Gets the name of the point: `round_started` (recorded, nobody asked yet) or `round_fanned_out` (a first release
    /// is stored, nothing is returned yet).
    pub at: Arc<dyn Fn(&'static str) + Send + Sync>,
}

impl Default for Hooks {
    fn default() -> Self {
        Self { at: Arc::new(|_| {}) }
    }
}

impl fmt::Debug for Hooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hooks")
    }
}

/// Why the coordinator does not run.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// A file of the configuration, or the state directory, cannot be used.
    #[error("{path}: {source}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// Another coordinator runs on this state directory.
    #[error("another coordinator uses {0}: stop it first")]
    InUse(PathBuf),
    /// A key cannot be used.
    #[error(transparent)]
    Key(#[from] KeyFileError),
    /// The database cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The documents cannot be used.
    #[error(transparent)]
    Documents(#[from] DocumentsError),
    /// The network cannot be started.
    #[error(transparent)]
    Network(#[from] TransportError),
    /// The door cannot be opened.
    #[error("door.address {address}: {source}")]
    Bind {
        /// Where.
        address: SocketAddr,
        /// What the operating system said.
        source: io::Error,
    },
    /// Metrics and health cannot be served.
    #[error("watch.address {address}: {source}")]
    Watch {
        /// Where.
        address: SocketAddr,
        /// What the operating system said.
        source: io::Error,
    },
    /// The listener of the log cannot be opened.
    #[error("transparency.address {address}: {source}")]
    Tiles {
        /// Where.
        address: SocketAddr,
        /// What the operating system said.
        source: io::Error,
    },
    /// The pages cannot be served.
    #[error(transparent)]
    Pages(#[from] PagesError),
    /// The policy of the log's witnesses.
    #[error("transparency.policy {path}: {source}", path = path.display())]
    Policy {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: PolicyError,
    },
    /// The door's TLS or its listener failed.
    #[error("the door: {0}")]
    Door(#[from] tonic::transport::Error),
}

/// A coordinator that runs.
pub struct Daemon {
    door: SocketAddr,
    nodes: Arc<Nodes>,
    store: Store,
    stop: watch::Sender<bool>,
    serving: JoinHandle<Result<(), tonic::transport::Error>>,
    network: JoinHandle<()>,
    watched: Option<Running>,
    pages: Option<Running>,
    tls: bool,
    tiles: Option<SocketAddr>,
    serve_tiles: Option<JoinHandle<io::Result<()>>>,
    _lock: fs::File,
}

impl Daemon {
    /// Starts a coordinator; on return people and nodes can reach it.
    ///
    /// # Errors
    /// When a file, a key, the database or an address cannot be used.
    pub async fn start(config: Config, clock: Arc<dyn Clock>, hooks: Hooks) -> Result<Self, DaemonError> {
        let lock = lock(&config.state_dir)?;
        let tls = config.door.tls.as_ref().map(identity).transpose()?;
        let (has_tls, address) = (tls.is_some(), config.door.address);
        let store = Store::open(&config.state_dir.join("coordinator.db")).await?;
        let interrupted = store.interrupt_rounds(clock.now()).await?;
        if interrupted > 0 {
            tracing::warn!(rounds = interrupted, "rounds were interrupted by the last stop");
        }
        let documents = Arc::new(Documents::open(store.clone(), config.trust).await?);
        let (transport_key, signing_keys) = own_keys(&documents, &config.transport_key, &config.signing_key)?;
        let listener = door::bind(address).await.map_err(|source| DaemonError::Bind { address, source })?;
        let local = listener.local_addr().map_err(|source| DaemonError::Bind { address, source })?;
        let signing_keys: Arc<[SecretKey]> = signing_keys.into();
        let (folder, policy) =
            (config.state_dir.join("log"), config.witness_policy.as_deref().map(policy).transpose()?);
        let tiles = Tiles::new(store.clone(), folder.clone());
        let of = documents.clone();
        let witnesses = Arc::new(Witnesses::new(store.clone(), of, signing_keys.clone(), tiles, policy));
        let (tiles, serve_tiles) = match config.tiles {
            None => (None, None),
            Some(address) => {
                let listening = tiles::listen(address, folder).await;
                let (address, serve) = listening.map_err(|source| DaemonError::Tiles { address, source })?;
                (Some(address), Some(tokio::spawn(serve)))
            }
        };
        let (documents_of, store_of) = (documents.clone(), store.clone());
        let (nodes, running) =
            Nodes::listen(&transport_key, config.listen, documents_of, store_of, witnesses.clone(), clock.clone())
                .await?;
        let nodes = Arc::new(nodes);
        let publics: Vec<_> = signing_keys.iter().map(SecretKey::public).collect();
        tokio::spawn(watch_membership(documents.clone(), nodes.local_peer().to_string(), publics));
        let parts_run = Arc::new(Parts::default());
        let (served, runs) = (nodes.clone(), parts_run.clone());
        let network = tokio::spawn(async move {
            let _runs = runs.transport();
            tokio::select! { () = served.run(running) => {}, () = witnesses.run() => {} }
        });
        tokio::spawn(state_earlier(documents.clone(), store.clone(), signing_keys.clone()));
        let parts = RoundParts {
            documents: documents.clone(),
            nodes: nodes.clone(),
            store: store.clone(),
            signing_keys,
            clock: clock.clone(),
            limits: config.limits,
            hooks,
        };
        let rounds = Arc::new(Rounds::new(parts));
        let scrape = Scrape {
            documents: documents.clone(),
            nodes: nodes.clone(),
            rounds: rounds.clone(),
            store: store.clone(),
            clock: clock.clone(),
            running: parts_run.clone(),
        };
        let pages = match &config.pages {
            None => None,
            Some(settings) => {
                let policy = config.witness_policy.as_deref().map(text).transpose()?;
                let (documents, store, nodes) = (documents.clone(), store.clone(), nodes.clone());
                let (rounds, clock, address) = (rounds.clone(), clock.clone(), String::new());
                let log = config.state_dir.join("log");
                let pages = Pages { documents, store, nodes, rounds, clock, policy, log, address };
                Some(pages::serve(settings, pages).await?)
            }
        };
        let door = Door { documents, nodes: nodes.clone(), rounds, store: store.clone(), clock };
        let (stop, mut stopping) = watch::channel(false);
        let stopped = async move { drop(stopping.wait_for(|stop| *stop).await) };
        let serving = tokio::spawn(async move {
            let _runs = parts_run.door();
            door.serve(listener, tls, stopped).await
        });
        let watched = watched(config.watch, scrape).await?;
        Ok(Self {
            door: local,
            nodes,
            store,
            stop,
            serving,
            network,
            watched,
            pages,
            tls: has_tls,
            tiles,
            serve_tiles,
            _lock: lock,
        })
    }

    /// Where people ask, as a URL.
    pub fn door_url(&self) -> String {
        format!("{}://{}", if self.tls { "https" } else { "http" }, self.door)
    }

    /// Where nodes dial in.
    pub fn listen_addrs(&self) -> Vec<Multiaddr> {
        self.nodes.listen_addrs()
    }

    /// Where anybody may read the log, as a URL.
    pub fn log_url(&self) -> Option<String> {
        self.tiles.map(|address| format!("http://{address}"))
    }

    /// Where people read the pages on this machine, as a URL.
    pub fn pages_url(&self) -> Option<String> {
        self.pages.as_ref().map(|pages| format!("http://{}", pages.address()))
    }

    /// Runs until `stop` is done or the door breaks; then closes everything.
    ///
    /// # Errors
    /// When the door broke.
    pub async fn run_until(mut self, stop: impl Future<Output = ()>) -> Result<(), DaemonError> {
        let broken = tokio::select! {
            () = stop => None,
            ended = &mut self.serving => Some(ended),
        };
        self.stop.send_replace(true);
        let ended = match broken {
            Some(ended) => ended,
            None => timeout(GRACE, &mut self.serving).await.unwrap_or(Ok(Ok(()))),
        };
        self.serving.abort();
        if let Some(pages) = self.pages {
            pages.stop().await;
        }
        if let Some(watched) = self.watched {
            watched.stop().await;
        }
        self.nodes.shutdown().await;
        self.network.abort();
        if let Some(tiles) = &self.serve_tiles {
            tiles.abort();
        }
        self.store.close().await;
        // A task that was cancelled here has nothing to say.
        ended.unwrap_or(Ok(())).map_err(DaemonError::Door)
    }
}

/// Metrics and health, where the configuration asks for them.
async fn watched(address: Option<SocketAddr>, scrape: Scrape) -> Result<Option<Running>, DaemonError> {
    let Some(address) = address else { return Ok(None) };
    let running = watching::serve(address, Arc::new(scrape)).await;
    running.map(Some).map_err(|source| DaemonError::Watch { address, source })
}

/// Makes the state directory (mode 0700) and takes its lock, which ends with the process.
pub(crate) fn lock(state_dir: &Path) -> Result<fs::File, DaemonError> {
    let path = state_dir.join("lock");
    let file = |source| DaemonError::File { path: path.clone(), source };
    fs::DirBuilder::new().recursive(true).mode(0o700).create(state_dir).map_err(file)?;
    let lock = fs::OpenOptions::new().write(true).create(true).truncate(false).open(&path).map_err(file)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(fs::TryLockError::WouldBlock) => Err(DaemonError::InUse(state_dir.into())),
        Err(fs::TryLockError::Error(source)) => Err(file(source)),
    }
}

/// The transport key, and the signing keys of which the roster chooses: the one in use, and the next one where there is
/// one. A next key that the roster names already takes the place of the one in use.
fn own_keys(
    documents: &Documents,
    transport: &Path,
    signing: &Path,
) -> Result<(SecretKey, Vec<SecretKey>), DaemonError> {
    let current = documents.current();
    let us = current.pinned_roster().and_then(|roster| roster.members.iter().find(|m| m.role == Role::Coordinator));
    if let Some(us) = us {
        key_file::promote(signing, |next| next.public() == us.signing_key)?;
        let names = |next: &SecretKey| peer_id_of_seed(&next.seed()).is_ok_and(|peer| peer.to_string() == us.peer_id);
        key_file::promote(transport, names)?;
    }
    let mut keys = vec![key_file::read(signing)?];
    keys.extend(key_file::read_next(signing)?);
    Ok((key_file::read(transport)?, keys))
}

fn policy(path: &Path) -> Result<Policy, DaemonError> {
    let bytes = fs::read(path).map_err(|source| DaemonError::File { path: path.into(), source })?;
    Policy::parse(&bytes).map_err(|source| DaemonError::Policy { path: path.into(), source })
}

fn text(path: &Path) -> Result<String, DaemonError> {
    fs::read_to_string(path).map_err(|source| DaemonError::File { path: path.into(), source })
}

fn identity(tls: &Tls) -> Result<Identity, DaemonError> {
    let read = |path: &PathBuf| fs::read(path).map_err(|source| DaemonError::File { path: path.clone(), source });
    Ok(Identity::from_pem(read(&tls.cert)?, read(&tls.key)?))
}

/// States the results of rounds that ended before there were statements.
async fn state_earlier(documents: Arc<Documents>, store: Store, keys: Arc<[SecretKey]>) {
    if let Err(error) = bundle::state_earlier(&documents, &store, &keys).await {
        tracing::error!(%error, "earlier results could not be stated");
    }
}

/// Tells the operator when the roster names another coordinator: nodes then refuse our routes.
async fn watch_membership(documents: Arc<Documents>, peer: String, keys: Vec<PublicKey>) {
    let mut changes = documents.watch();
    loop {
        let current = changes.borrow_and_update().clone();
        if let Some(roster) = current.pinned_roster() {
            let us = roster
                .member_by_peer(&peer)
                .filter(|us| us.role == Role::Coordinator && keys.contains(&us.signing_key));
            if us.is_none() {
                tracing::warn!(roster = roster.seq, "the roster does not name this coordinator: hand it a member.json");
            }
        }
        if changes.changed().await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests;
