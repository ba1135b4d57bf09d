-- What persons did at this node: who, when, why. It is the hospital's own and never leaves it.
CREATE TABLE operation (
    operation INTEGER PRIMARY KEY,
    at TEXT NOT NULL,
    who TEXT NOT NULL, -- the name of a console token, or '(command line)'
    act TEXT NOT NULL,
    what TEXT NOT NULL, -- a permit as ID/VERSION, a study, '*' for all of them, or the number of an alert
    reason TEXT NOT NULL
) STRICT;
CREATE INDEX operation_by_act ON operation (act, operation);

CREATE TRIGGER operation_no_update BEFORE UPDATE ON operation
BEGIN SELECT RAISE(ABORT, 'what a person did is never changed'); END;
CREATE TRIGGER operation_no_delete BEFORE DELETE ON operation
BEGIN SELECT RAISE(ABORT, 'what a person did is never deleted'); END;
CREATE TRIGGER operation_in_order BEFORE INSERT ON operation
WHEN NEW.operation IS NOT (SELECT coalesce(max(operation), 0) + 1 FROM operation)
BEGIN SELECT RAISE(ABORT, 'operations have no gaps'); END;
