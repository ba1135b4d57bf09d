//! Tiles: how the hashes of a log are stored and served (c2sp.org/tlog-tiles, height 8), and the bundles of its entries.
//!
//! Tiles from a stranger are not believed: a proof made from them is checked against a signed checkpoint like any other.
//! Deliberately absent: pruning.

use std::{cell::RefCell, collections::BTreeMap, fmt, str::FromStr};

use crate::{
    digest::Digest,
    log::{
        lines,
        merkle::{HashReader, MAX_SIZE, Node, node_hash},
    },
};

/// How many levels of the tree one tile spans.
pub const HEIGHT: u8 = 8;
/// How many hashes a full tile has.
pub const WIDTH: u16 = 1 << HEIGHT;
/// The highest level of tiles that a tree within [`MAX_SIZE`] has.
const MAX_LEVEL: u8 = 7;

/// One tile: `width` hashes of complete subtrees of 256^`level` leaves, beginning with number 256 × `index`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tile {
    level: u8,
    index: u64,
    width: u16,
}

/// The text is not the path of a tile.
#[derive(Debug, thiserror::Error)]
#[error("not the path of a tile; for example tile/0/x001/x234/067 or tile/1/000.p/17")]
pub struct NotATile;

impl Tile {
    /// The tile that holds what the hash of `node` is made of, as it is in a log of `size` entries; `None` when the log
    /// does not have all leaves of `node`.
    pub fn holding(node: Node, size: u64) -> Option<Self> {
        let (level, inside) = (node.level / HEIGHT, node.level % HEIGHT);
        let end = node.index.checked_add(1)?.checked_mul(1_u64.checked_shl(node.level.into())?)?;
        if end > size || size > MAX_SIZE {
            return None;
        }
        Self::at(level, node.index >> (HEIGHT - inside), size)
    }

    /// The tile at this level and index in a log of `size` entries, if it has one.
    fn at(level: u8, index: u64, size: u64) -> Option<Self> {
        let hashes = size >> (HEIGHT * level);
        let width = hashes.checked_sub(index << HEIGHT)?.min(WIDTH.into());
        (width > 0).then_some(Self { level, index, width: width as u16 })
    }

    /// The tiles that come to be or become wider when a log of `old` entries grows to `new` entries.
    pub fn between(old: u64, new: u64) -> impl Iterator<Item = Self> {
        let new = new.min(MAX_SIZE);
        (0..=MAX_LEVEL).flat_map(move |level| {
            let (from, until) = (old >> (HEIGHT * level), new >> (HEIGHT * level));
            let indices = if from < until { (from >> HEIGHT)..until.div_ceil(WIDTH.into()) } else { 0..0 };
            indices.filter_map(move |index| Self::at(level, index, new))
        })
    }

    /// The level: 0 for leaves.
    pub fn level(&self) -> u8 {
        self.level
    }

    /// The place among the tiles of its level.
    pub fn index(&self) -> u64 {
        self.index
    }

    /// How many hashes it has: 256 when it is full.
    pub fn width(&self) -> u16 {
        self.width
    }

    /// The path of the bundle of the entries whose hashes a tile of level 0 has.
    pub fn entries_path(&self) -> String {
        format!("tile/entries/{}", self.place())
    }

    fn place(&self) -> String {
        let mut text = format!("{:03}", self.index % 1000);
        let mut rest = self.index / 1000;
        while rest > 0 {
            text = format!("x{:03}/{text}", rest % 1000);
            rest /= 1000;
        }
        if self.width < WIDTH { format!("{text}.p/{}", self.width) } else { text }
    }
}

impl fmt::Display for Tile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tile/{}/{}", self.level, self.place())
    }
}

impl FromStr for Tile {
    type Err = NotATile;

    /// Reads the path of a tile of hashes. What parses is written back byte for byte.
    fn from_str(path: &str) -> Result<Self, NotATile> {
        if path.len() > 64 {
            return Err(NotATile);
        }
        let (level, place) = path.strip_prefix("tile/").and_then(|rest| rest.split_once('/')).ok_or(NotATile)?;
        let (place, width) = match place.split_once(".p/") {
            Some((place, width)) => (place, lines::number(width).ok_or(NotATile)?),
            None => (place, WIDTH.into()),
        };
        let level = lines::number(level).filter(|level| *level <= MAX_LEVEL.into()).ok_or(NotATile)?;
        let index = place.split('/').try_fold(0_u64, |index, digits| {
            let digits = digits.strip_prefix('x').unwrap_or(digits);
            let part = digits.parse::<u16>().ok().filter(|part| *part < 1000)?;
            index.checked_mul(1000)?.checked_add(part.into()).filter(|index| *index <= MAX_SIZE >> HEIGHT)
        });
        let width = u16::try_from(width).ok().filter(|width| (1..=WIDTH).contains(width)).ok_or(NotATile)?;
        let tile = Self { level: level as u8, index: index.ok_or(NotATile)?, width };
        if tile.to_string() == path { Ok(tile) } else { Err(NotATile) }
    }
}

/// Where tiles come from.
pub trait TileReader {
    /// Why a tile cannot be read.
    type Error;

    /// The bytes of `tile`: 32 for each of its hashes.
    ///
    /// # Errors
    /// When the storage fails, or lacks the tile.
    fn tile(&self, tile: Tile) -> Result<Vec<u8>, Self::Error>;
}

/// Why a hash cannot be had from tiles.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum TileError<E> {
    /// The storage said so.
    #[error(transparent)]
    Reader(E),
    /// The log is too short.
    #[error("a log of {size} entries does not have all leaves below node {} of level {}", node.index, node.level)]
    Outside {
        /// What was asked for.
        node: Node,
        /// How many entries the log has.
        size: u64,
    },
    /// The tile is cut short or too long.
    #[error("{tile} has {found} bytes; it must have {needed}")]
    Length {
        /// Which tile.
        tile: Tile,
        /// How many bytes it has.
        found: usize,
        /// How many it must have.
        needed: usize,
    },
}

/// The hashes of a log of `size` entries, from its tiles. Each tile is read once; keep it for one proof.
pub struct TileHashes<'a, R> {
    reader: &'a R,
    size: u64,
    seen: RefCell<BTreeMap<Tile, Vec<Digest>>>,
}

impl<'a, R: TileReader> TileHashes<'a, R> {
    /// Hashes of the log as it was when it had `size` entries.
    pub fn new(reader: &'a R, size: u64) -> Self {
        Self { reader, size, seen: RefCell::new(BTreeMap::new()) }
    }

    fn read(&self, tile: Tile) -> Result<Vec<Digest>, TileError<R::Error>> {
        let bytes = self.reader.tile(tile).map_err(TileError::Reader)?;
        let (hashes, rest) = bytes.as_chunks::<32>();
        let (found, needed) = (bytes.len(), usize::from(tile.width) * 32);
        if found != needed || !rest.is_empty() {
            return Err(TileError::Length { tile, found, needed });
        }
        Ok(hashes.iter().map(|hash| Digest::from_bytes(*hash)).collect())
    }
}

impl<R: TileReader> HashReader for TileHashes<'_, R> {
    type Error = TileError<R::Error>;

    fn hash(&self, node: Node) -> Result<Digest, Self::Error> {
        let outside = TileError::Outside { node, size: self.size };
        let Some(tile) = Tile::holding(node, self.size) else { return Err(outside) };
        let mut seen = self.seen.borrow_mut();
        let hashes = match seen.entry(tile) {
            std::collections::btree_map::Entry::Occupied(found) => found.into_mut(),
            std::collections::btree_map::Entry::Vacant(gap) => gap.insert(self.read(tile)?),
        };
        let inside = node.level % HEIGHT;
        let from = ((node.index << inside) % u64::from(WIDTH)) as usize;
        hashes.get(from..from + (1 << inside)).map(complete).ok_or(outside)
    }
}

/// The root of a complete tree whose leaves have these hashes; their number is a power of two.
fn complete(hashes: &[Digest]) -> Digest {
    match hashes {
        [one] => *one,
        more => {
            let (left, right) = more.split_at(more.len() / 2);
            node_hash(complete(left), complete(right))
        }
    }
}

/// The entries of a tile as one file: each with its length before it, as two bytes big-endian.
/// `None` when one is longer than 65,535 bytes.
pub fn bundle(entries: &[impl AsRef<[u8]>]) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    for entry in entries.iter().map(AsRef::as_ref) {
        bytes.extend(u16::try_from(entry.len()).ok()?.to_be_bytes());
        bytes.extend(entry);
    }
    Some(bytes)
}

/// The `width` entries of a bundle; `None` when there are more, or fewer, or a byte is missing.
pub fn unbundle(mut bytes: &[u8], width: u16) -> Option<Vec<Vec<u8>>> {
    let mut entries = Vec::with_capacity(width.min(WIDTH).into());
    for _ in 0..width {
        let (length, rest) = bytes.split_first_chunk::<2>()?;
        let (entry, rest) = rest.split_at_checked(u16::from_be_bytes(*length).into())?;
        entries.push(entry.to_vec());
        bytes = rest;
    }
    bytes.is_empty().then_some(entries)
}
