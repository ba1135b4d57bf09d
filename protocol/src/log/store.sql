-- A party's log in its own database: hospitals and the coordinator have the same tables. This text is a migration: a
-- later change is another one.
-- Leaves and tiles only grow; a statement may be erased with its salt, and every proof stays valid.

-- What the tree is made of, counted from 0.
CREATE TABLE log_leaf (
    idx INTEGER PRIMARY KEY,
    kind TEXT NOT NULL,
    commitment BLOB NOT NULL CHECK (length(commitment) = 32)
) STRICT;

CREATE TRIGGER log_leaf_no_update BEFORE UPDATE ON log_leaf
BEGIN SELECT RAISE(ABORT, 'the log is append-only'); END;
CREATE TRIGGER log_leaf_no_delete BEFORE DELETE ON log_leaf
BEGIN SELECT RAISE(ABORT, 'the log is append-only'); END;
CREATE TRIGGER log_leaf_in_order BEFORE INSERT ON log_leaf
WHEN NEW.idx IS NOT (SELECT coalesce(max(idx) + 1, 0) FROM log_leaf)
BEGIN SELECT RAISE(ABORT, 'the log has no gaps'); END;

-- What opens a leaf. A row may be erased; it comes with its leaf and is never changed.
CREATE TABLE log_statement (
    idx INTEGER PRIMARY KEY REFERENCES log_leaf (idx),
    salt BLOB NOT NULL CHECK (length(salt) = 32),
    digest BLOB NOT NULL CHECK (length(digest) = 32),
    envelope BLOB NOT NULL
) STRICT;
CREATE INDEX log_statement_by_digest ON log_statement (digest);

CREATE TRIGGER log_statement_no_update BEFORE UPDATE ON log_statement
BEGIN SELECT RAISE(ABORT, 'a statement is never changed'); END;
CREATE TRIGGER log_statement_with_leaf BEFORE INSERT ON log_statement
WHEN NEW.idx IS NOT (SELECT max(idx) FROM log_leaf) OR EXISTS (SELECT 1 FROM log_statement WHERE idx = NEW.idx)
BEGIN SELECT RAISE(ABORT, 'a statement comes with its leaf'); END;

-- The hashes of complete subtrees of 256^level leaves, 256 to a row, as tiles are served.
CREATE TABLE log_tile (
    level INTEGER NOT NULL CHECK (level BETWEEN 0 AND 7),
    idx INTEGER NOT NULL CHECK (idx >= 0),
    hashes BLOB NOT NULL CHECK (length(hashes) BETWEEN 32 AND 8192 AND length(hashes) % 32 = 0),
    PRIMARY KEY (level, idx)
) STRICT;

CREATE TRIGGER log_tile_grows BEFORE UPDATE ON log_tile
WHEN NEW.level <> OLD.level OR NEW.idx <> OLD.idx OR substr(NEW.hashes, 1, length(OLD.hashes)) <> OLD.hashes
BEGIN SELECT RAISE(ABORT, 'a tile only grows'); END;
CREATE TRIGGER log_tile_no_delete BEFORE DELETE ON log_tile
BEGIN SELECT RAISE(ABORT, 'a tile stays'); END;
CREATE TRIGGER log_tile_no_replace BEFORE INSERT ON log_tile
WHEN EXISTS (SELECT 1 FROM log_tile WHERE level = NEW.level AND idx = NEW.idx)
BEGIN SELECT RAISE(ABORT, 'a tile only grows'); END;

-- How many leaves there are and their root: what the next checkpoint will say.
CREATE TABLE log_head (
    only INTEGER PRIMARY KEY CHECK (only = 0),
    size INTEGER NOT NULL CHECK (size > 0),
    root BLOB NOT NULL CHECK (length(root) = 32)
) STRICT;

CREATE TRIGGER log_head_grows BEFORE UPDATE ON log_head
WHEN NEW.only <> OLD.only OR NEW.size <= OLD.size
BEGIN SELECT RAISE(ABORT, 'the log never shrinks'); END;
CREATE TRIGGER log_head_no_delete BEFORE DELETE ON log_head
BEGIN SELECT RAISE(ABORT, 'the log never shrinks'); END;
CREATE TRIGGER log_head_no_replace BEFORE INSERT ON log_head
WHEN EXISTS (SELECT 1 FROM log_head)
BEGIN SELECT RAISE(ABORT, 'the log has one head'); END;

-- What this log is called, for ever.
CREATE TABLE log_origin (
    only INTEGER PRIMARY KEY CHECK (only = 0),
    origin TEXT NOT NULL
) STRICT;

CREATE TRIGGER log_origin_no_update BEFORE UPDATE ON log_origin
BEGIN SELECT RAISE(ABORT, 'a log keeps its name'); END;
CREATE TRIGGER log_origin_no_delete BEFORE DELETE ON log_origin
BEGIN SELECT RAISE(ABORT, 'a log keeps its name'); END;
CREATE TRIGGER log_origin_no_replace BEFORE INSERT ON log_origin
WHEN EXISTS (SELECT 1 FROM log_origin)
BEGIN SELECT RAISE(ABORT, 'a log keeps its name'); END;

-- The newest signed checkpoint of each log that is watched here.
CREATE TABLE log_checkpoint (
    origin TEXT PRIMARY KEY,
    size INTEGER NOT NULL CHECK (size >= 0),
    note BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TRIGGER log_checkpoint_forward BEFORE UPDATE ON log_checkpoint
WHEN NEW.origin <> OLD.origin OR NEW.size < OLD.size
BEGIN SELECT RAISE(ABORT, 'a newer checkpoint is never replaced by an older one'); END;
CREATE TRIGGER log_checkpoint_no_delete BEFORE DELETE ON log_checkpoint
BEGIN SELECT RAISE(ABORT, 'the newest checkpoint stays'); END;
CREATE TRIGGER log_checkpoint_no_replace BEFORE INSERT ON log_checkpoint
WHEN EXISTS (SELECT 1 FROM log_checkpoint WHERE origin = NEW.origin)
BEGIN SELECT RAISE(ABORT, 'a log has one newest checkpoint'); END;
