-- Queries and dry runs that the coordinator refused, of those that a person of some permit really signed: one row for each
-- day, kind, code, study and person. Whoever nobody knows leaves no row.
CREATE TABLE refused_request (
    day TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('query', 'dry_run')),
    code TEXT NOT NULL,
    study TEXT NOT NULL,
    person BLOB NOT NULL CHECK (length(person) = 32),
    times INTEGER NOT NULL CHECK (times >= 1),
    first_at TEXT NOT NULL,
    last_at TEXT NOT NULL,
    PRIMARY KEY (day, kind, code, study, person)
) STRICT, WITHOUT ROWID;
