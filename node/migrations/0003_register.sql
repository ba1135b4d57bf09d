-- Who said what is recorded, and what a hospital's own systems were answered.

-- Who said no, or took it back; events from before know nothing of it.
ALTER TABLE register_event ADD COLUMN said_by TEXT
    CHECK (said_by IS NULL OR (said_by IN ('self', 'guardian', 'bereaved') AND kind IN ('opted_out', 'opt_out_withdrawn')));

-- The events of a file while it is imported, to find one that is in it twice; empty outside that transaction.
CREATE TABLE register_import (
    place INTEGER PRIMARY KEY,
    line INTEGER NOT NULL,
    patient TEXT NOT NULL,
    kind TEXT NOT NULL,
    on_date TEXT NOT NULL,
    said_by TEXT,
    known INTEGER NOT NULL,
    UNIQUE (patient, kind, on_date)
) STRICT;

-- What the local endpoint answered to a request that recorded something, by its idempotency key.
CREATE TABLE local_answer (
    caller TEXT NOT NULL,
    key TEXT NOT NULL,
    body BLOB NOT NULL CHECK (length(body) = 32),
    answer TEXT NOT NULL,
    at TEXT NOT NULL,
    PRIMARY KEY (caller, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX local_answer_by_age ON local_answer (at);
