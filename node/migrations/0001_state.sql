-- The node's state: ledger, log, patient register, pinned documents.
-- Instants are RFC 3339 in UTC with nine decimals, days are ISO 8601, digests are 32 bytes,
-- amounts are integers: micro-rho, and 10^-18 for delta.
-- Append-only tables number their rows without a gap, and the number is given with the row: so neither
-- UPDATE, DELETE nor INSERT OR REPLACE changes what was written.

-- One study: what is set aside for it, and how many charged runs gave no answer since it was last resumed.
CREATE TABLE study (
    study_id TEXT PRIMARY KEY,
    earmark INTEGER NOT NULL CHECK (earmark >= 0),
    no_answers INTEGER NOT NULL DEFAULT 0 CHECK (no_answers >= 0)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER study_earmark_never_shrinks BEFORE UPDATE OF study_id, earmark ON study
WHEN NEW.earmark < OLD.earmark OR NEW.study_id <> OLD.study_id
BEGIN SELECT RAISE(ABORT, 'an earmark never shrinks'); END;
CREATE TRIGGER study_no_delete BEFORE DELETE ON study
BEGIN SELECT RAISE(ABORT, 'a study is never deleted'); END;
CREATE TRIGGER study_no_replace BEFORE INSERT ON study
WHEN EXISTS (SELECT 1 FROM study WHERE study_id = NEW.study_id)
BEGIN SELECT RAISE(ABORT, 'a study is never replaced'); END;

-- One charge: what a run cost, whether or not anything was released.
CREATE TABLE charge (
    charge_id INTEGER PRIMARY KEY,
    permit BLOB NOT NULL CHECK (length(permit) = 32),
    query_key BLOB NOT NULL CHECK (length(query_key) = 32),
    run INTEGER NOT NULL CHECK (run >= 1),
    study_id TEXT NOT NULL REFERENCES study (study_id),
    query BLOB NOT NULL CHECK (length(query) = 32),
    micro_rho INTEGER NOT NULL CHECK (micro_rho > 0),
    atto_delta INTEGER NOT NULL CHECK (atto_delta >= 0),
    register_seq INTEGER NOT NULL CHECK (register_seq >= 0),
    as_of TEXT NOT NULL,
    snapshot TEXT NOT NULL,
    charged_at TEXT NOT NULL,
    UNIQUE (permit, query_key, run)
) STRICT;
CREATE INDEX charge_by_study ON charge (study_id, micro_rho);

CREATE TRIGGER charge_no_update BEFORE UPDATE ON charge
BEGIN SELECT RAISE(ABORT, 'a charge is never changed'); END;
CREATE TRIGGER charge_no_delete BEFORE DELETE ON charge
BEGIN SELECT RAISE(ABORT, 'a charge is never refunded'); END;
CREATE TRIGGER charge_no_replace BEFORE INSERT ON charge
WHEN NEW.charge_id IS NOT (SELECT coalesce(max(charge_id), 0) + 1 FROM charge)
    OR EXISTS (SELECT 1 FROM charge WHERE permit = NEW.permit AND query_key = NEW.query_key AND run = NEW.run)
BEGIN SELECT RAISE(ABORT, 'a run is charged once, in order'); END;
CREATE TRIGGER charge_within_earmark BEFORE INSERT ON charge
WHEN (SELECT coalesce(sum(micro_rho), 0) FROM charge WHERE study_id = NEW.study_id) + NEW.micro_rho
    > coalesce((SELECT earmark FROM study WHERE study_id = NEW.study_id), 0)
BEGIN SELECT RAISE(ABORT, 'a study is never charged beyond its earmark'); END;

-- What a run released: there is one release, ever.
CREATE TABLE release (
    charge_id INTEGER PRIMARY KEY REFERENCES charge (charge_id),
    header BLOB NOT NULL,
    cells BLOB NOT NULL,
    receipt BLOB NOT NULL,
    salts BLOB NOT NULL -- open the receipt's commitments; they never leave the hospital
) STRICT;

CREATE TRIGGER release_no_update BEFORE UPDATE ON release
BEGIN SELECT RAISE(ABORT, 'a release is never changed'); END;
CREATE TRIGGER release_no_delete BEFORE DELETE ON release
BEGIN SELECT RAISE(ABORT, 'a release is never deleted'); END;
CREATE TRIGGER release_no_replace BEFORE INSERT ON release
WHEN EXISTS (SELECT 1 FROM release WHERE charge_id = NEW.charge_id)
BEGIN SELECT RAISE(ABORT, 'a run has one release'); END;

-- When a charged run gave no answer; a run may fail several times.
CREATE TABLE no_answer (
    charge_id INTEGER NOT NULL REFERENCES charge (charge_id),
    at TEXT NOT NULL
) STRICT;

-- Nonces that are still in use, and the signed message that used each.
CREATE TABLE nonce (
    nonce TEXT PRIMARY KEY,
    query BLOB NOT NULL CHECK (length(query) = 32),
    expires TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX nonce_by_expiry ON nonce (expires);

-- The log of DSSE envelopes, counted from 0.
CREATE TABLE log (
    idx INTEGER PRIMARY KEY,
    charge_id INTEGER NOT NULL REFERENCES charge (charge_id),
    envelope BLOB NOT NULL
) STRICT;

CREATE TRIGGER log_no_update BEFORE UPDATE ON log
BEGIN SELECT RAISE(ABORT, 'the log is append-only'); END;
CREATE TRIGGER log_no_delete BEFORE DELETE ON log
BEGIN SELECT RAISE(ABORT, 'the log is append-only'); END;
CREATE TRIGGER log_in_order BEFORE INSERT ON log
WHEN NEW.idx IS NOT (SELECT coalesce(max(idx) + 1, 0) FROM log)
BEGIN SELECT RAISE(ABORT, 'the log has no gaps'); END;

-- What is known of patients: notices, opt-outs, withdrawals, deaths.
CREATE TABLE register_event (
    seq INTEGER PRIMARY KEY,
    patient TEXT NOT NULL CHECK (length(patient) > 0),
    kind TEXT NOT NULL CHECK (kind IN ('notified', 'opted_out', 'opt_out_withdrawn', 'died')),
    on_date TEXT NOT NULL,
    by TEXT NOT NULL,
    recorded_at TEXT NOT NULL
) STRICT;
CREATE INDEX register_event_by_patient ON register_event (patient, kind, on_date);

CREATE TRIGGER register_event_no_update BEFORE UPDATE ON register_event
BEGIN SELECT RAISE(ABORT, 'the register is append-only'); END;
CREATE TRIGGER register_event_no_delete BEFORE DELETE ON register_event
BEGIN SELECT RAISE(ABORT, 'the register is append-only'); END;
CREATE TRIGGER register_event_in_order BEFORE INSERT ON register_event
WHEN NEW.seq IS NOT (SELECT coalesce(max(seq), 0) + 1 FROM register_event)
BEGIN SELECT RAISE(ABORT, 'the register has no gaps'); END;

-- The newest roster and status that were seen.
CREATE TABLE pinned (
    kind TEXT PRIMARY KEY CHECK (kind IN ('roster', 'status')),
    seq INTEGER NOT NULL CHECK (seq >= 0),
    digest BLOB NOT NULL CHECK (length(digest) = 32),
    envelope BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TRIGGER pinned_only_forward BEFORE UPDATE ON pinned
WHEN NEW.seq <= OLD.seq OR NEW.kind <> OLD.kind
BEGIN SELECT RAISE(ABORT, 'a newer document is never replaced by an older one'); END;
CREATE TRIGGER pinned_no_replace BEFORE INSERT ON pinned
WHEN EXISTS (SELECT 1 FROM pinned WHERE kind = NEW.kind)
BEGIN SELECT RAISE(ABORT, 'one document of a kind is pinned'); END;
CREATE TRIGGER pinned_no_delete BEFORE DELETE ON pinned
BEGIN SELECT RAISE(ABORT, 'the newest document stays pinned'); END;

-- The permits that were answered, with the signed answer.
CREATE TABLE permit (
    digest BLOB PRIMARY KEY CHECK (length(digest) = 32),
    id TEXT NOT NULL,
    version INTEGER NOT NULL,
    study_id TEXT NOT NULL,
    envelope BLOB NOT NULL,
    acceptance BLOB NOT NULL,
    refused TEXT,
    at TEXT NOT NULL
) STRICT, WITHOUT ROWID;
