-- The earliest day that a receipt of a hospital named as that of its first exact release: since then no guarantee of
-- differential privacy holds for its patient register, whatever study it answers.
CREATE TABLE exact_since (
    node TEXT NOT NULL PRIMARY KEY,
    day TEXT NOT NULL
) STRICT, WITHOUT ROWID;
