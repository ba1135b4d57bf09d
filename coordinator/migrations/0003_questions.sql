-- The signed query of every round from here on: the use register publishes its SQL. One row for each signed message.
CREATE TABLE question (
    query BLOB PRIMARY KEY CHECK (length(query) = 32),
    envelope BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX round_by_permit ON round (permit, started_at);

-- Results that wait, or waited, for reviewers. Whether they may leave is said by the signed reviews among the documents.
CREATE TABLE held (
    result BLOB PRIMARY KEY CHECK (length(result) = 32),
    permit BLOB NOT NULL REFERENCES document (digest),
    query_key BLOB NOT NULL CHECK (length(query_key) = 32),
    run INTEGER NOT NULL CHECK (run >= 1),
    round TEXT NOT NULL REFERENCES round (round),
    held_at TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX held_by_time ON held (held_at);
