-- Which service runs a visit, where several share a database; and when each was last seen.

ALTER TABLE visits ADD COLUMN service TEXT;

CREATE TABLE services (
    id      TEXT NOT NULL PRIMARY KEY,
    seen_at TEXT NOT NULL
) STRICT, WITHOUT ROWID;
