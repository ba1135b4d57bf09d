-- The hospital's own decisions, and running totals, so that admission does not add up the whole ledger.

-- Who decided about a permit, and why; whether the coordinator has fetched the answer.
ALTER TABLE permit ADD COLUMN decided_by TEXT NOT NULL DEFAULT 'policy' CHECK (decided_by IN ('policy', 'hand'));
ALTER TABLE permit ADD COLUMN reason TEXT;
ALTER TABLE permit ADD COLUMN delivered INTEGER NOT NULL DEFAULT 1 CHECK (delivered IN (0, 1));

-- What the hospital suspended: a study, or with '*' everything.
CREATE TABLE suspension (
    study_id TEXT PRIMARY KEY,
    reason TEXT NOT NULL,
    at TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- What a study spent: the sums of its charges, which never shrink.
ALTER TABLE study ADD COLUMN spent INTEGER NOT NULL DEFAULT 0 CHECK (spent >= 0);
ALTER TABLE study ADD COLUMN spent_delta INTEGER NOT NULL DEFAULT 0 CHECK (spent_delta >= 0);
UPDATE study SET
    spent = (SELECT coalesce(sum(micro_rho), 0) FROM charge WHERE charge.study_id = study.study_id),
    spent_delta = (SELECT coalesce(sum(atto_delta), 0) FROM charge WHERE charge.study_id = study.study_id);
CREATE TRIGGER charge_is_summed AFTER INSERT ON charge
BEGIN
    UPDATE study SET spent = spent + NEW.micro_rho, spent_delta = spent_delta + NEW.atto_delta
    WHERE study_id = NEW.study_id;
END;
CREATE TRIGGER study_spent_never_shrinks BEFORE UPDATE OF spent, spent_delta ON study
WHEN NEW.spent < OLD.spent OR NEW.spent_delta < OLD.spent_delta
BEGIN SELECT RAISE(ABORT, 'what was spent never shrinks'); END;

-- An earmark may be given back as far as it was not spent.
DROP TRIGGER study_earmark_never_shrinks;
CREATE TRIGGER study_earmark_covers_what_was_spent BEFORE UPDATE OF study_id, earmark ON study
WHEN (NEW.earmark < OLD.earmark AND NEW.earmark < OLD.spent) OR NEW.study_id <> OLD.study_id
BEGIN SELECT RAISE(ABORT, 'an earmark covers what was spent'); END;

-- What was charged on a day, for the window.
CREATE TABLE charge_day (
    day TEXT PRIMARY KEY,
    micro_rho INTEGER NOT NULL CHECK (micro_rho >= 0)
) STRICT, WITHOUT ROWID;
INSERT INTO charge_day SELECT substr(charged_at, 1, 10), sum(micro_rho) FROM charge GROUP BY 1;
CREATE TRIGGER charge_is_summed_by_day AFTER INSERT ON charge
BEGIN
    INSERT INTO charge_day VALUES (substr(NEW.charged_at, 1, 10), NEW.micro_rho)
    ON CONFLICT (day) DO UPDATE SET micro_rho = micro_rho + excluded.micro_rho;
END;
CREATE TRIGGER charge_day_never_shrinks BEFORE UPDATE ON charge_day
WHEN NEW.micro_rho < OLD.micro_rho OR NEW.day <> OLD.day
BEGIN SELECT RAISE(ABORT, 'what was charged on a day never shrinks'); END;
CREATE TRIGGER charge_day_no_delete BEFORE DELETE ON charge_day
BEGIN SELECT RAISE(ABORT, 'what was charged on a day stays'); END;
CREATE INDEX charge_by_time ON charge (charged_at, micro_rho);
