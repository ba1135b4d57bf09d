-- Every signed document by (kind, name, seq): rosters, statuses, committees, … have a history by number, catalogues one
-- for each hospital, permits and applications one for each id. What has no number has seq 0.
PRAGMA defer_foreign_keys = ON;

CREATE TABLE document_2 (
    digest BLOB PRIMARY KEY CHECK (length(digest) = 32),
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    seq INTEGER NOT NULL CHECK (seq >= 0),
    envelope BLOB NOT NULL,
    put_at TEXT NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO document_2 (digest, kind, name, seq, envelope, put_at)
SELECT digest, kind, coalesce(permit_id, ''), coalesce(seq, permit_version, 0), envelope, put_at FROM document;
DROP TABLE document;
ALTER TABLE document_2 RENAME TO document;
CREATE UNIQUE INDEX document_by_place ON document (kind, name, seq) WHERE seq > 0;
CREATE INDEX document_by_name ON document (kind, name, put_at);

CREATE TRIGGER document_no_delete BEFORE DELETE ON document
BEGIN SELECT RAISE(ABORT, 'a document is never deleted'); END;
