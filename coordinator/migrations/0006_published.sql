-- The coordinator's signed account of each result: the first round that brought it has it.
CREATE TABLE published (
    result BLOB PRIMARY KEY CHECK (length(result) = 32),
    permit BLOB NOT NULL REFERENCES document (digest),
    round TEXT NOT NULL REFERENCES round (round),
    envelope BLOB NOT NULL,
    at TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX published_by_permit ON published (permit, at);

-- The proof that a receipt is in its hospital's log, as it came with the answer; none of rounds before hospitals gave them.
CREATE TABLE receipt_proof (
    round TEXT NOT NULL,
    node TEXT NOT NULL,
    proof BLOB NOT NULL,
    PRIMARY KEY (round, node),
    FOREIGN KEY (round, node) REFERENCES release (round, node)
) STRICT, WITHOUT ROWID;
