-- What follows when an older copy of this database was put back: the log goes on under another name, and what the lost one
-- charged is charged again.

-- The logs that came after the first one, each begun by a write-off.
CREATE TABLE log_succession (
    generation INTEGER PRIMARY KEY CHECK (generation >= 2),
    origin TEXT NOT NULL,
    idx INTEGER NOT NULL REFERENCES log_leaf (idx), -- the entry of the write-off
    envelope BLOB NOT NULL
) STRICT;

CREATE TRIGGER log_succession_no_update BEFORE UPDATE ON log_succession
BEGIN SELECT RAISE(ABORT, 'a log keeps its name'); END;
CREATE TRIGGER log_succession_no_delete BEFORE DELETE ON log_succession
BEGIN SELECT RAISE(ABORT, 'a log keeps its name'); END;
CREATE TRIGGER log_succession_in_order BEFORE INSERT ON log_succession
WHEN NEW.generation <= (SELECT coalesce(max(generation), 1) FROM log_succession)
BEGIN SELECT RAISE(ABORT, 'a later log has a higher number'); END;

-- Charges of runs whose releases are not here: they are never run again.
CREATE TABLE lost_run (
    charge_id INTEGER PRIMARY KEY REFERENCES charge (charge_id)
) STRICT;

CREATE TRIGGER lost_run_no_update BEFORE UPDATE ON lost_run
BEGIN SELECT RAISE(ABORT, 'a lost run stays lost'); END;
CREATE TRIGGER lost_run_no_delete BEFORE DELETE ON lost_run
BEGIN SELECT RAISE(ABORT, 'a lost run stays lost'); END;
CREATE TRIGGER lost_run_no_replace BEFORE INSERT ON lost_run
WHEN EXISTS (SELECT 1 FROM lost_run WHERE charge_id = NEW.charge_id)
BEGIN SELECT RAISE(ABORT, 'a lost run stays lost'); END;
