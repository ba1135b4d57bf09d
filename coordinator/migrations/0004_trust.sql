-- Governance keys that an operator pinned by hand, the newest in force; without one the configuration's key is.
CREATE TABLE governance_pin (
    epoch INTEGER PRIMARY KEY CHECK (epoch >= 1),
    key TEXT NOT NULL,
    reason TEXT NOT NULL CHECK (length(reason) > 0),
    at TEXT NOT NULL
) STRICT;

CREATE TRIGGER governance_pin_no_update BEFORE UPDATE ON governance_pin
BEGIN SELECT RAISE(ABORT, 'a pin is never changed'); END;
CREATE TRIGGER governance_pin_no_delete BEFORE DELETE ON governance_pin
BEGIN SELECT RAISE(ABORT, 'a pin is never taken back'); END;
CREATE TRIGGER governance_pin_in_order BEFORE INSERT ON governance_pin
WHEN NEW.epoch IS NOT (SELECT coalesce(max(epoch), 0) + 1 FROM governance_pin)
BEGIN SELECT RAISE(ABORT, 'pins have no gaps'); END;

-- The committee that a permit was taken under, by the digest of its document.
CREATE TABLE permit_committee (
    permit BLOB PRIMARY KEY CHECK (length(permit) = 32),
    committee BLOB NOT NULL CHECK (length(committee) = 32)
) STRICT, WITHOUT ROWID;
