//! The coordinator's log as files (c2sp.org/tlog-tiles), and their listener: public, read-only, off unless it is configured.
//!
//! Promises: the files are made from the database, so that whatever is missing or cut is written again at the next start; a file
//! is seen whole or not at all; the checkpoint is written after all tiles that it needs. Only paths of the specification lead to a
//! file. What is served says nothing about a statement: entries are salted commitments.
//!
//! Deliberately absent: TLS (nothing here is secret, and all of it is signed), pruning of partial tiles, and compression.

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use axum::{
    Router,
    body::Body,
    extract::{Path as UrlPath, State},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use sekisho_protocol::{
    log::{
        checkpoint::SignedCheckpoint,
        tile::{Tile, bundle},
    },
    loopback::Bounded,
};
use tokio::{fs, net::TcpListener};

use crate::store::{Store, StoreError};

/// Why the files cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum TilesError {
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The disk.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// What was written.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// A file is not what the log says.
    #[error("{path}: {what}", path = path.display())]
    Differs {
        /// Which file.
        path: PathBuf,
        /// How.
        what: String,
    },
}

/// The folder of the log's files.
pub struct Tiles {
    store: Store,
    dir: PathBuf,
    /// How many entries are known to be in the files.
    written: AtomicU64,
}

impl Tiles {
    /// The log of `store` in the folder `dir`, of which nothing is believed yet.
    pub fn new(store: Store, dir: PathBuf) -> Self {
        Self { store, dir, written: AtomicU64::new(0) }
    }

    /// Writes what the log of `checkpoint` needs and is not there, then the checkpoint.
    ///
    /// # Errors
    /// When the database or the disk fails; then the checkpoint before stays.
    pub async fn publish(&self, checkpoint: &SignedCheckpoint) -> Result<(), TilesError> {
        let size = checkpoint.claimed().head().size();
        for tile in Tile::between(self.written.load(Ordering::Relaxed), size) {
            let hashes = usize::from(tile.width()) * 32;
            if !self.has(&tile.to_string(), hashes).await {
                self.write(&tile.to_string(), &self.store.log_tile(tile).await?).await?;
            }
            // Each entry has its length before it.
            if tile.level() == 0 && !self.has(&tile.entries_path(), hashes + 2 * usize::from(tile.width())).await {
                let entries = self.store.log_commitments(tile).await?;
                let bundle = bundle(&entries).ok_or(StoreError::Corrupt("log entry"))?;
                self.write(&tile.entries_path(), &bundle).await?;
            }
        }
        self.write("checkpoint", checkpoint.to_string().as_bytes()).await?;
        self.written.store(size, Ordering::Relaxed);
        Ok(())
    }

    /// Compares the files that the published checkpoint needs with the log, and the checkpoint itself; how many entries it has,
    /// none when nothing was published.
    ///
    /// # Errors
    /// [`TilesError::Differs`] names the first file that is not what it was.
    pub async fn check(&self) -> Result<Option<u64>, TilesError> {
        let Some(note) = self.read("checkpoint").await? else { return Ok(None) };
        let published = SignedCheckpoint::parse(&note);
        let published = published.map_err(|error| self.differs("checkpoint", error.to_string()))?;
        let signed = published.claimed().head();
        let head = self.store.log_head_at(signed.size()).await;
        let head = head.map_err(|error| self.differs("checkpoint", error.to_string()))?;
        if head != *signed {
            let what = format!("the first {} entries of the log do not have its root", signed.size());
            return Err(self.differs("checkpoint", what));
        }
        for tile in Tile::between(0, signed.size()) {
            self.same(&tile.to_string(), &self.store.log_tile(tile).await?).await?;
            if tile.level() == 0 {
                let entries = self.store.log_commitments(tile).await?;
                self.same(&tile.entries_path(), &bundle(&entries).ok_or(StoreError::Corrupt("log entry"))?).await?;
            }
        }
        Ok(Some(signed.size()))
    }

    async fn same(&self, path: &str, expected: &[u8]) -> Result<(), TilesError> {
        match self.read(path).await? {
            Some(found) if found == expected => Ok(()),
            Some(found) if found.len() != expected.len() => {
                Err(self.differs(path, format!("it has {} bytes, and {} in the log", found.len(), expected.len())))
            }
            Some(_) => Err(self.differs(path, "its bytes are not those of the log".into())),
            None => Err(self.differs(path, "it is missing; the next start of the coordinator makes it again".into())),
        }
    }

    fn differs(&self, path: &str, what: String) -> TilesError {
        TilesError::Differs { path: self.dir.join(path), what }
    }

    async fn read(&self, path: &str) -> Result<Option<Vec<u8>>, TilesError> {
        let path = self.dir.join(path);
        match fs::read(&path).await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(TilesError::Io { path, source }),
        }
    }

    async fn has(&self, path: &str, bytes: usize) -> bool {
        fs::metadata(self.dir.join(path)).await.is_ok_and(|found| found.len() == bytes as u64)
    }

    async fn write(&self, path: &str, bytes: &[u8]) -> Result<(), TilesError> {
        let path = self.dir.join(path);
        let written = async {
            fs::create_dir_all(path.parent().unwrap_or(Path::new("."))).await?;
            let part = path.with_extension("part");
            let mut file = fs::File::create(&part).await?;
            tokio::io::AsyncWriteExt::write_all(&mut file, bytes).await?;
            file.sync_all().await?;
            fs::rename(&part, &path).await
        };
        written.await.map_err(|source| TilesError::Io { path: path.clone(), source })
    }
}

/// The file of a path of the specification, and whether it never changes.
fn file_of(path: &str) -> Option<bool> {
    if path == "checkpoint" {
        return Some(false);
    }
    // A bundle is named as the tile of level 0 is.
    let tile = path.strip_prefix("tile/entries/").map_or_else(|| path.into(), |place| format!("tile/0/{place}"));
    tile.parse::<Tile>().is_ok().then_some(true)
}

/// The routes over the files in `dir`.
pub fn router(dir: PathBuf) -> Router {
    Router::new().route("/{*path}", get(file)).with_state(Arc::new(dir))
}

async fn file(State(dir): State<Arc<PathBuf>>, UrlPath(path): UrlPath<String>) -> Response {
    answer(&dir, &path).await.unwrap_or_else(|| StatusCode::NOT_FOUND.into_response())
}

/// The answer with the file at `path`, which is one of the specification; none when it is not there.
pub(crate) async fn answer(dir: &Path, path: &str) -> Option<Response> {
    let for_ever = file_of(path)?;
    let bytes = fs::read(dir.join(path)).await.ok()?;
    let (kind, cache) = if for_ever {
        ("application/octet-stream", "public, max-age=31536000, immutable")
    } else {
        ("text/plain; charset=utf-8", "no-cache")
    };
    let mut response = Response::new(Body::from(bytes));
    for (name, value) in
        [(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, cache), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")]
    {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    Some(response)
}

/// A listener for the files in `dir`; where it listens, and what serves until it is dropped.
///
/// # Errors
/// When the address is taken.
pub async fn listen(
    address: SocketAddr,
    dir: PathBuf,
) -> io::Result<(SocketAddr, impl Future<Output = io::Result<()>>)> {
    let listener = TcpListener::bind(address).await?;
    let address = listener.local_addr()?;
    Ok((address, axum::serve(Bounded::new(listener), router(dir)).into_future()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use sekisho_protocol::{
        digest::Digest,
        keys::SecretKey,
        log::{
            edge::Edge,
            merkle::leaf_hash,
            note::{KeyName, NoteKey, Signs},
            tile::{TileHashes, TileReader, unbundle},
        },
    };
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::store::{Kind, Place};

    #[test]
    fn only_paths_of_the_specification_lead_to_a_file() {
        for (path, found) in [
            ("checkpoint", Some(false)),
            ("tile/0/000", Some(true)),
            ("tile/0/x001/x234/067", Some(true)),
            ("tile/2/000.p/17", Some(true)),
            ("tile/entries/000.p/255", Some(true)),
            ("", None),
            ("coordinator.db", None),
            ("../coordinator.db", None),
            ("tile/0/../../checkpoint", None),
            ("tile/entries/../../../coordinator.db", None),
            ("tile/entries/000.part", None),
            ("tile/8/000", None),
            ("tile/0/0", None),
            ("checkpoint/", None),
        ] {
            assert_eq!(file_of(path), found, "{path}");
        }
    }

    async fn get(address: SocketAddr, path: &str) -> (String, Vec<u8>) {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let request = format!("GET /{path} HTTP/1.1\r\nHost: log\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        let at = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
        (String::from_utf8(answer[9..12].to_vec()).unwrap(), answer[at + 4..].to_vec())
    }

    /// The files in a folder, as they were served.
    struct Served(BTreeMap<Tile, Vec<u8>>);

    impl TileReader for Served {
        type Error = ();

        fn tile(&self, tile: Tile) -> Result<Vec<u8>, ()> {
            self.0.get(&tile).cloned().ok_or(())
        }
    }

    #[tokio::test]
    async fn what_is_served_has_the_root_that_was_signed_and_is_made_again_when_it_is_missing() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("coordinator.db")).await.unwrap();
        let (at, key) = ("2026-01-01T00:00:00Z".parse().unwrap(), SecretKey::generate(&mut rand::rng()));
        let origin: KeyName = "sekisho-test/coordinator".parse().unwrap();
        let folder = dir.path().join("log");
        let (address, serve) = listen("127.0.0.1:0".parse().unwrap(), folder.clone()).await.unwrap();
        tokio::spawn(serve);
        assert_eq!(get(address, "checkpoint").await.0, "404");
        let mut tiles = Tiles::new(store.clone(), folder.clone());
        for (entries, missing) in [(3, ""), (256, ""), (300, "tile/0/000"), (301, "tile/entries/000")] {
            for i in store.log_size().await.unwrap()..entries {
                let (digest, place) = (Digest::of(&i.to_be_bytes()), Place { name: i.to_string(), seq: 1 });
                store.put_document(Kind::Permit, digest, &place, &i.to_be_bytes(), at).await.unwrap();
            }
            if !missing.is_empty() {
                std::fs::remove_file(folder.join(missing)).unwrap();
                tiles = Tiles::new(store.clone(), folder.clone());
            }
            tiles.publish(&store.checkpoint(&origin, &key).await.unwrap()).await.unwrap();

            let checkpoint = SignedCheckpoint::parse(&get(address, "checkpoint").await.1).unwrap();
            let key = NoteKey::new(origin.clone(), Signs::Text, key.public());
            let head = *checkpoint.verify(&key).unwrap().head();
            assert_eq!(head.size(), entries);
            let mut served = Served(BTreeMap::new());
            for tile in Tile::between(0, entries) {
                let (status, bytes) = get(address, &tile.to_string()).await;
                assert_eq!((status.as_str(), bytes.len()), ("200", usize::from(tile.width()) * 32), "{tile}");
                if tile.level() == 0 {
                    let entries = unbundle(&get(address, &tile.entries_path()).await.1, tile.width()).unwrap();
                    let hashes: Vec<u8> = entries.iter().flat_map(|entry| *leaf_hash(entry).as_bytes()).collect();
                    assert_eq!(hashes, bytes);
                }
                served.0.insert(tile, bytes);
            }
            Edge::read(&head, &TileHashes::new(&served, entries)).unwrap();
        }
        assert_eq!(tiles.check().await.unwrap(), Some(301));
        for (path, change, named) in [
            ("tile/0/000", "cut", "it has 8191 bytes, and 8192 in the log"),
            ("tile/0/001.p/45", "changed", "its bytes are not those of the log"),
            ("tile/entries/000", "swapped", "its bytes are not those of the log"),
            ("tile/1/000.p/1", "missing", "it is missing"),
            ("checkpoint", "cut", "not a"),
            ("checkpoint", "changed", "do not have its root"),
        ] {
            let file = folder.join(path);
            let whole = std::fs::read(&file).unwrap();
            let mut bytes = whole.clone();
            match change {
                "cut" => drop(bytes.pop()),
                "changed" => {
                    // Of the checkpoint a digit of its size, of a tile a bit.
                    let at = bytes.windows(3).position(|three| three == b"301").map_or(0, |at| at + 2);
                    bytes[at] ^= 1;
                }
                "swapped" => bytes[2..68].rotate_left(34),
                _ => {}
            }
            if change == "missing" {
                std::fs::remove_file(&file).unwrap()
            } else {
                std::fs::write(&file, bytes).unwrap()
            }
            let found = tiles.check().await.unwrap_err().to_string();
            assert!(found.contains(path) && found.contains(named), "{path} {change}: {found}");
            std::fs::write(&file, whole).unwrap();
        }
        assert_eq!(tiles.check().await.unwrap(), Some(301));
        for path in ["coordinator.db", "tile/0/999", "%2e%2e/coordinator.db", "checkpoint.part"] {
            assert_eq!(get(address, path).await.0, "404", "{path}");
        }
    }
}
