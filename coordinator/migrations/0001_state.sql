-- The coordinator's state: signed documents, acceptances, rounds and what hospitals released in them.
-- Instants are RFC 3339 in UTC with nine decimals, digests are 32 bytes, documents are DSSE envelopes in JSON.

-- Every document that was accepted here. The roster and the status in force are those of the highest seq.
CREATE TABLE document (
    digest BLOB PRIMARY KEY CHECK (length(digest) = 32),
    kind TEXT NOT NULL CHECK (kind IN ('roster', 'status', 'schema', 'permit')),
    seq INTEGER CHECK (seq >= 1),
    permit_id TEXT,
    permit_version INTEGER CHECK (permit_version >= 1),
    envelope BLOB NOT NULL,
    put_at TEXT NOT NULL,
    CHECK ((kind IN ('roster', 'status')) = (seq IS NOT NULL)),
    CHECK ((kind = 'permit') = (permit_id IS NOT NULL AND permit_version IS NOT NULL))
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX document_by_seq ON document (kind, seq) WHERE seq IS NOT NULL;
CREATE UNIQUE INDEX document_by_version ON document (permit_id, permit_version) WHERE permit_id IS NOT NULL;

CREATE TRIGGER document_no_delete BEFORE DELETE ON document
BEGIN SELECT RAISE(ABORT, 'a document is never deleted'); END;

-- A hospital's signed answer to a permit: the newest.
CREATE TABLE acceptance (
    node TEXT NOT NULL,
    permit BLOB NOT NULL REFERENCES document (digest),
    envelope BLOB NOT NULL,
    at TEXT NOT NULL,
    PRIMARY KEY (node, permit)
) STRICT, WITHOUT ROWID;

-- One query across hospitals.
CREATE TABLE round (
    round TEXT PRIMARY KEY,
    query BLOB NOT NULL CHECK (length(query) = 32),
    query_key BLOB NOT NULL CHECK (length(query_key) = 32),
    permit BLOB NOT NULL REFERENCES document (digest),
    run INTEGER NOT NULL CHECK (run >= 1),
    state TEXT NOT NULL CHECK (state IN ('running', 'done', 'interrupted')),
    started_at TEXT NOT NULL,
    ended_at TEXT,
    report TEXT,
    CHECK ((state = 'running') = (ended_at IS NULL)),
    CHECK ((state = 'done') = (report IS NOT NULL))
) STRICT, WITHOUT ROWID;
CREATE INDEX round_by_question ON round (query_key, run);
CREATE INDEX round_by_state ON round (state);

-- What a hospital released in a round, with its receipt.
CREATE TABLE release (
    round TEXT NOT NULL REFERENCES round (round),
    node TEXT NOT NULL,
    header BLOB NOT NULL,
    cells BLOB NOT NULL,
    receipt BLOB NOT NULL,
    PRIMARY KEY (round, node)
) STRICT, WITHOUT ROWID;
