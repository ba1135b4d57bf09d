-- Exact results ("aggregated" releases): what was asked, what a person decided, and whom each release is about.

-- A run that costs nothing is charged too: it binds snapshot, register and day, and has one release, as every run has. The
-- table is made again, since SQLite keeps a CHECK for ever.
PRAGMA defer_foreign_keys = ON;
CREATE TEMP TABLE charge_before AS SELECT * FROM charge;
DROP TABLE charge;
CREATE TABLE charge (
    charge_id INTEGER PRIMARY KEY,
    permit BLOB NOT NULL CHECK (length(permit) = 32),
    query_key BLOB NOT NULL CHECK (length(query_key) = 32),
    run INTEGER NOT NULL CHECK (run >= 1),
    study_id TEXT NOT NULL REFERENCES study (study_id),
    query BLOB NOT NULL CHECK (length(query) = 32),
    micro_rho INTEGER NOT NULL CHECK (micro_rho >= 0),
    atto_delta INTEGER NOT NULL CHECK (atto_delta >= 0),
    register_seq INTEGER NOT NULL CHECK (register_seq >= 0),
    as_of TEXT NOT NULL,
    snapshot TEXT NOT NULL,
    charged_at TEXT NOT NULL,
    UNIQUE (permit, query_key, run)
) STRICT;
INSERT INTO charge (charge_id, permit, query_key, run, study_id, query, micro_rho, atto_delta, register_seq, as_of, snapshot, charged_at)
    SELECT charge_id, permit, query_key, run, study_id, query, micro_rho, atto_delta, register_seq, as_of, snapshot, charged_at
    FROM charge_before ORDER BY charge_id;
DROP TABLE charge_before;
CREATE INDEX charge_by_study ON charge (study_id, micro_rho);
CREATE INDEX charge_by_time ON charge (charged_at, micro_rho);

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
CREATE TRIGGER charge_is_summed AFTER INSERT ON charge
BEGIN
    UPDATE study SET spent = spent + NEW.micro_rho, spent_delta = spent_delta + NEW.atto_delta
    WHERE study_id = NEW.study_id;
END;
CREATE TRIGGER charge_is_summed_by_day AFTER INSERT ON charge
BEGIN
    INSERT INTO charge_day VALUES (substr(NEW.charged_at, 1, 10), NEW.micro_rho)
    ON CONFLICT (day) DO UPDATE SET micro_rho = micro_rho + excluded.micro_rho;
END;
CREATE TRIGGER charge_of_nothing_is_exact BEFORE INSERT ON charge
WHEN NEW.micro_rho = 0 AND NOT EXISTS (SELECT 1 FROM exact_release
    WHERE permit = NEW.permit AND query_key = NEW.query_key AND run = NEW.run)
BEGIN SELECT RAISE(ABORT, 'only an exact release that a person decided costs nothing'); END;

-- An exact question that was asked, once for each run; a person decides.
CREATE TABLE exact_request (
    request INTEGER PRIMARY KEY,
    permit BLOB NOT NULL CHECK (length(permit) = 32),
    query_key BLOB NOT NULL CHECK (length(query_key) = 32),
    run INTEGER NOT NULL CHECK (run >= 1),
    study_id TEXT NOT NULL,
    query BLOB NOT NULL CHECK (length(query) = 32), -- the digest of the message that asked first
    envelope BLOB NOT NULL, -- that message
    at TEXT NOT NULL,
    UNIQUE (permit, query_key, run)
) STRICT;
CREATE INDEX exact_request_by_study ON exact_request (study_id);

CREATE TRIGGER exact_request_no_update BEFORE UPDATE ON exact_request
BEGIN SELECT RAISE(ABORT, 'a request is never changed'); END;
CREATE TRIGGER exact_request_no_delete BEFORE DELETE ON exact_request
BEGIN SELECT RAISE(ABORT, 'a request is never deleted'); END;
CREATE TRIGGER exact_request_in_order BEFORE INSERT ON exact_request
WHEN NEW.request IS NOT (SELECT coalesce(max(request), 0) + 1 FROM exact_request)
    OR EXISTS (SELECT 1 FROM exact_request WHERE permit = NEW.permit AND query_key = NEW.query_key AND run = NEW.run)
BEGIN SELECT RAISE(ABORT, 'a run is asked for once, in order'); END;

-- What became of it. A decision is for ever; a later cut of the data is another run.
CREATE TABLE exact_decision (
    request INTEGER PRIMARY KEY REFERENCES exact_request (request),
    decision TEXT NOT NULL CHECK (decision IN ('released', 'refused', 'too_close')),
    who TEXT NOT NULL CHECK (length(who) > 0),
    reason TEXT NOT NULL,
    at TEXT NOT NULL
) STRICT;

CREATE TRIGGER exact_decision_no_update BEFORE UPDATE ON exact_decision
BEGIN SELECT RAISE(ABORT, 'a decision is never changed'); END;
CREATE TRIGGER exact_decision_no_delete BEFORE DELETE ON exact_decision
BEGIN SELECT RAISE(ABORT, 'a decision is never deleted'); END;
CREATE TRIGGER exact_decision_no_replace BEFORE INSERT ON exact_decision
WHEN EXISTS (SELECT 1 FROM exact_decision WHERE request = NEW.request)
BEGIN SELECT RAISE(ABORT, 'a request is decided once'); END;

-- Each exact release of this patient register, written before it is made. Of one that only a receipt from a lost database
-- tells of, SQL and cohort are not known.
CREATE TABLE exact_release (
    release INTEGER PRIMARY KEY,
    permit BLOB NOT NULL CHECK (length(permit) = 32),
    query_key BLOB NOT NULL CHECK (length(query_key) = 32),
    run INTEGER NOT NULL CHECK (run >= 1),
    study_id TEXT NOT NULL,
    sql BLOB CHECK (length(sql) = 32), -- SHA-256 of the text
    cut TEXT NOT NULL, -- the day of the snapshot
    min_patients INTEGER NOT NULL CHECK (min_patients >= 0),
    at TEXT NOT NULL,
    UNIQUE (permit, query_key, run)
) STRICT;
CREATE INDEX exact_release_by_sql ON exact_release (sql, cut);

CREATE TRIGGER exact_release_no_update BEFORE UPDATE ON exact_release
BEGIN SELECT RAISE(ABORT, 'an exact release is never changed'); END;
CREATE TRIGGER exact_release_no_delete BEFORE DELETE ON exact_release
BEGIN SELECT RAISE(ABORT, 'an exact release is never forgotten'); END;
CREATE TRIGGER exact_release_in_order BEFORE INSERT ON exact_release
WHEN NEW.release IS NOT (SELECT coalesce(max(release), 0) + 1 FROM exact_release)
    OR EXISTS (SELECT 1 FROM exact_release WHERE permit = NEW.permit AND query_key = NEW.query_key AND run = NEW.run)
BEGIN SELECT RAISE(ABORT, 'exact releases have no gaps'); END;

-- Whom an exact release is about: hashes of patients under a key that is not in this database.
CREATE TABLE cohort (
    release INTEGER PRIMARY KEY REFERENCES exact_release (release),
    key BLOB NOT NULL CHECK (length(key) = 32), -- which key, by fingerprint
    patients BLOB NOT NULL
) STRICT;

CREATE TRIGGER cohort_no_update BEFORE UPDATE ON cohort
BEGIN SELECT RAISE(ABORT, 'a cohort is never changed'); END;
CREATE TRIGGER cohort_no_delete BEFORE DELETE ON cohort
BEGIN SELECT RAISE(ABORT, 'a cohort is never forgotten'); END;
CREATE TRIGGER cohort_no_replace BEFORE INSERT ON cohort
WHEN EXISTS (SELECT 1 FROM cohort WHERE release = NEW.release)
BEGIN SELECT RAISE(ABORT, 'a release has one cohort'); END;

-- Days since which no guarantee of differential privacy holds for this register; the first of them counts.
CREATE TABLE exact_since (
    day TEXT PRIMARY KEY
) STRICT, WITHOUT ROWID;

CREATE TRIGGER exact_since_no_update BEFORE UPDATE ON exact_since
BEGIN SELECT RAISE(ABORT, 'what was released stays released'); END;
CREATE TRIGGER exact_since_no_delete BEFORE DELETE ON exact_since
BEGIN SELECT RAISE(ABORT, 'what was released stays released'); END;
