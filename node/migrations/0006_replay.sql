-- What a run is made again from, for an inspector: the question as it was asked, and the sealed seed of its noise.

-- Permits of questions, by digest, each once: the envelope, or of the hospital's own counts the document.
CREATE TABLE asked_permit (
    digest BLOB PRIMARY KEY CHECK (length(digest) = 32),
    document BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TRIGGER asked_permit_no_update BEFORE UPDATE ON asked_permit
BEGIN SELECT RAISE(ABORT, 'a question is never changed'); END;
CREATE TRIGGER asked_permit_no_delete BEFORE DELETE ON asked_permit
BEGIN SELECT RAISE(ABORT, 'a question is never deleted'); END;
CREATE TRIGGER asked_permit_no_replace BEFORE INSERT ON asked_permit
WHEN EXISTS (SELECT 1 FROM asked_permit WHERE digest = NEW.digest)
BEGIN SELECT RAISE(ABORT, 'a question is never replaced'); END;

-- What was asked when a run was charged: the signed message (of own counts, the question), and the hospital's own
-- rule then.
CREATE TABLE asked (
    charge_id INTEGER PRIMARY KEY REFERENCES charge (charge_id),
    signed INTEGER NOT NULL CHECK (signed IN (0, 1)),
    query BLOB NOT NULL,
    own_rule TEXT NOT NULL -- JSON
) STRICT;

CREATE TRIGGER asked_no_update BEFORE UPDATE ON asked
BEGIN SELECT RAISE(ABORT, 'a question is never changed'); END;
CREATE TRIGGER asked_no_delete BEFORE DELETE ON asked
BEGIN SELECT RAISE(ABORT, 'a question is never deleted'); END;
CREATE TRIGGER asked_no_replace BEFORE INSERT ON asked
WHEN EXISTS (SELECT 1 FROM asked WHERE charge_id = NEW.charge_id)
BEGIN SELECT RAISE(ABORT, 'a question is never replaced'); END;

-- The seed of a release's noise, sealed under a key that is not in this database.
CREATE TABLE release_seed (
    charge_id INTEGER PRIMARY KEY REFERENCES release (charge_id),
    key BLOB NOT NULL CHECK (length(key) = 32), -- which key, by fingerprint
    nonce BLOB NOT NULL CHECK (length(nonce) = 24),
    sealed BLOB NOT NULL CHECK (length(sealed) = 48)
) STRICT;

CREATE TRIGGER release_seed_no_update BEFORE UPDATE ON release_seed
BEGIN SELECT RAISE(ABORT, 'a seed is never changed'); END;
CREATE TRIGGER release_seed_no_delete BEFORE DELETE ON release_seed
BEGIN SELECT RAISE(ABORT, 'a seed is never deleted'); END;
CREATE TRIGGER release_seed_no_replace BEFORE INSERT ON release_seed
WHEN EXISTS (SELECT 1 FROM release_seed WHERE charge_id = NEW.charge_id)
BEGIN SELECT RAISE(ABORT, 'a release has one seed'); END;

-- When a run was made again; the signed account of it is in the log.
CREATE TABLE replay (
    charge_id INTEGER NOT NULL REFERENCES charge (charge_id),
    at TEXT NOT NULL
) STRICT;
CREATE INDEX replay_by_charge ON replay (charge_id);

CREATE TRIGGER replay_no_update BEFORE UPDATE ON replay
BEGIN SELECT RAISE(ABORT, 'a replay is never changed'); END;
CREATE TRIGGER replay_no_delete BEFORE DELETE ON replay
BEGIN SELECT RAISE(ABORT, 'a replay is never deleted'); END;
