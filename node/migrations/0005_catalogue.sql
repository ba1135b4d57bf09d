-- The hospital's catalogue: its own counts, and what was published.

-- One draw of a table's counts. It is written before anything is charged, with the question as it will be asked, so that
-- whoever goes on after a kill asks the same question under the same charge.
CREATE TABLE catalogue_draw (
    draw INTEGER PRIMARY KEY,
    data_set TEXT NOT NULL,
    tbl TEXT NOT NULL,
    begun_on TEXT NOT NULL,
    question TEXT NOT NULL -- JSON
) STRICT;
CREATE INDEX catalogue_draw_by_table ON catalogue_draw (data_set, tbl, draw);

CREATE TRIGGER catalogue_draw_no_update BEFORE UPDATE ON catalogue_draw
BEGIN SELECT RAISE(ABORT, 'a draw is never changed'); END;
CREATE TRIGGER catalogue_draw_no_delete BEFORE DELETE ON catalogue_draw
BEGIN SELECT RAISE(ABORT, 'a draw is never deleted'); END;
CREATE TRIGGER catalogue_draw_in_order BEFORE INSERT ON catalogue_draw
WHEN NEW.draw IS NOT (SELECT coalesce(max(draw), 0) + 1 FROM catalogue_draw)
BEGIN SELECT RAISE(ABORT, 'draws have no gaps'); END;

-- The signed catalogues, counted from 1.
CREATE TABLE catalogue (
    seq INTEGER PRIMARY KEY,
    digest BLOB NOT NULL CHECK (length(digest) = 32),
    envelope BLOB NOT NULL,
    published_at TEXT NOT NULL
) STRICT;

CREATE TRIGGER catalogue_no_update BEFORE UPDATE ON catalogue
BEGIN SELECT RAISE(ABORT, 'a catalogue is never changed'); END;
CREATE TRIGGER catalogue_no_delete BEFORE DELETE ON catalogue
BEGIN SELECT RAISE(ABORT, 'a catalogue is never deleted'); END;
CREATE TRIGGER catalogue_in_order BEFORE INSERT ON catalogue
WHEN NEW.seq IS NOT (SELECT coalesce(max(seq), 0) + 1 FROM catalogue)
BEGIN SELECT RAISE(ABORT, 'catalogues have no gaps'); END;
