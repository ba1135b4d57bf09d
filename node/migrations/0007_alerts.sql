-- Alerts: entries of the log that are about no charge, and what a rule counts until it speaks.

CREATE TABLE log_2 (
    idx INTEGER PRIMARY KEY,
    charge_id INTEGER REFERENCES charge (charge_id), -- none for an alert
    envelope BLOB NOT NULL
) STRICT;
INSERT INTO log_2 (idx, charge_id, envelope) SELECT idx, charge_id, envelope FROM log;
DROP TABLE log;
ALTER TABLE log_2 RENAME TO log;

CREATE TRIGGER log_no_update BEFORE UPDATE ON log
BEGIN SELECT RAISE(ABORT, 'the log is append-only'); END;
CREATE TRIGGER log_no_delete BEFORE DELETE ON log
BEGIN SELECT RAISE(ABORT, 'the log is append-only'); END;
CREATE TRIGGER log_in_order BEFORE INSERT ON log
WHEN NEW.idx IS NOT (SELECT coalesce(max(idx) + 1, 0) FROM log)
BEGIN SELECT RAISE(ABORT, 'the log has no gaps'); END;
CREATE INDEX IF NOT EXISTS log_by_charge ON log (charge_id, idx);

-- What the node noticed, as it stands in the log.
CREATE TABLE alert (
    alert INTEGER PRIMARY KEY,
    rule TEXT NOT NULL,
    study_id TEXT NOT NULL, -- '' for none
    at TEXT NOT NULL,
    envelope BLOB NOT NULL
) STRICT;
CREATE INDEX alert_by_rule ON alert (rule, study_id, at);
CREATE INDEX alert_by_time ON alert (at);

CREATE TRIGGER alert_no_update BEFORE UPDATE ON alert
BEGIN SELECT RAISE(ABORT, 'an alert is never changed'); END;
CREATE TRIGGER alert_no_delete BEFORE DELETE ON alert
BEGIN SELECT RAISE(ABORT, 'an alert is never deleted'); END;
CREATE TRIGGER alert_in_order BEFORE INSERT ON alert
WHEN NEW.alert IS NOT (SELECT coalesce(max(alert), 0) + 1 FROM alert)
BEGIN SELECT RAISE(ABORT, 'alerts have no gaps'); END;

-- The events that a rule has counted and that no other table holds, written every few seconds: never more of a study than
-- the rule's threshold.
CREATE TABLE sighting (
    rule TEXT NOT NULL,
    study_id TEXT NOT NULL, -- '' for none
    at TEXT NOT NULL
) STRICT;
CREATE INDEX sighting_by_rule ON sighting (rule, study_id);
CREATE INDEX no_answer_by_time ON no_answer (at);
