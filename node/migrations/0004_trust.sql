-- Whose signatures count, as it changes: chains of committees and governance keys, regulators' orders, and the pins that
-- an operator set by hand. A line is what a document's number belongs to: for roster, status and governance the number of
-- the operator's pin, for committees the digest of the pinned one, for orders the regulator and its key.

CREATE TABLE pinned_2 (
    kind TEXT NOT NULL CHECK (kind IN ('roster', 'status', 'orders')),
    line TEXT NOT NULL,
    seq INTEGER NOT NULL CHECK (seq >= 0),
    digest BLOB NOT NULL CHECK (length(digest) = 32),
    envelope BLOB NOT NULL,
    PRIMARY KEY (kind, line)
) STRICT, WITHOUT ROWID;
INSERT INTO pinned_2 (kind, line, seq, digest, envelope) SELECT kind, '0', seq, digest, envelope FROM pinned;
DROP TABLE pinned;
ALTER TABLE pinned_2 RENAME TO pinned;

CREATE TRIGGER pinned_only_forward BEFORE UPDATE ON pinned
WHEN NEW.seq <= OLD.seq OR NEW.kind <> OLD.kind OR NEW.line <> OLD.line
BEGIN SELECT RAISE(ABORT, 'a newer document is never replaced by an older one'); END;
CREATE TRIGGER pinned_no_replace BEFORE INSERT ON pinned
WHEN EXISTS (SELECT 1 FROM pinned WHERE kind = NEW.kind AND line = NEW.line)
BEGIN SELECT RAISE(ABORT, 'one document of a line is pinned'); END;
CREATE TRIGGER pinned_no_delete BEFORE DELETE ON pinned
BEGIN SELECT RAISE(ABORT, 'the newest document stays pinned'); END;

-- Every link, since each says who may sign the next.
CREATE TABLE chain (
    kind TEXT NOT NULL CHECK (kind IN ('governance', 'committee')),
    line TEXT NOT NULL,
    seq INTEGER NOT NULL CHECK (seq >= 1),
    digest BLOB NOT NULL CHECK (length(digest) = 32),
    envelope BLOB NOT NULL,
    PRIMARY KEY (kind, line, seq)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER chain_no_update BEFORE UPDATE ON chain
BEGIN SELECT RAISE(ABORT, 'a link is never changed'); END;
CREATE TRIGGER chain_no_delete BEFORE DELETE ON chain
BEGIN SELECT RAISE(ABORT, 'a link is never taken out'); END;
CREATE TRIGGER chain_in_order BEFORE INSERT ON chain
WHEN NEW.seq IS NOT (SELECT coalesce(max(seq), 0) + 1 FROM chain WHERE kind = NEW.kind AND line = NEW.line)
BEGIN SELECT RAISE(ABORT, 'a chain has no gaps'); END;

-- Governance keys that an operator pinned by hand, the newest in force; without one the configuration's key is.
CREATE TABLE governance_pin (
    epoch INTEGER PRIMARY KEY CHECK (epoch >= 1),
    key TEXT NOT NULL,
    reason TEXT NOT NULL CHECK (length(reason) > 0),
    at TEXT NOT NULL
) STRICT;

CREATE TRIGGER governance_pin_no_update BEFORE UPDATE ON governance_pin
BEGIN SELECT RAISE(ABORT, 'a pin is never changed'); END;
CREATE TRIGGER governance_pin_no_delete BEFORE DELETE ON governance_pin
BEGIN SELECT RAISE(ABORT, 'a pin is never taken back'); END;
CREATE TRIGGER governance_pin_in_order BEFORE INSERT ON governance_pin
WHEN NEW.epoch IS NOT (SELECT coalesce(max(epoch), 0) + 1 FROM governance_pin)
BEGIN SELECT RAISE(ABORT, 'pins have no gaps'); END;

-- The committee that a permit was taken under, by the digest of its document.
CREATE TABLE permit_committee (
    permit BLOB PRIMARY KEY CHECK (length(permit) = 32),
    committee BLOB NOT NULL CHECK (length(committee) = 32)
) STRICT, WITHOUT ROWID;
