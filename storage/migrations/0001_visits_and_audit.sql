-- The audit log (one hash chain a tenant), and the tables that follow from it.

CREATE TABLE audit (
    tenant   TEXT NOT NULL,
    seq      INTEGER NOT NULL CHECK (seq >= 1),
    visit    TEXT NOT NULL,
    at       TEXT NOT NULL,
    kind     TEXT NOT NULL,
    data     TEXT NOT NULL,
    previous TEXT NOT NULL,
    hash     TEXT NOT NULL,
    PRIMARY KEY (tenant, seq)
) STRICT, WITHOUT ROWID;

CREATE INDEX audit_by_visit ON audit (visit);

-- What can happen once in a visit happens once, whatever the program above thinks. The gate above all.
CREATE UNIQUE INDEX audit_once ON audit (visit, kind)
    WHERE kind IN ('visit.started', 'decision', 'gate.requested', 'gate.answered', 'visit.ended');

-- for sqlite:

CREATE TRIGGER audit_is_not_changed BEFORE UPDATE ON audit
BEGIN
    SELECT RAISE(ABORT, 'the audit log is append-only: no record can be changed');
END;

CREATE TRIGGER audit_is_not_deleted BEFORE DELETE ON audit
BEGIN
    SELECT RAISE(ABORT, 'the audit log is append-only: no record can be deleted');
END;

-- A second writer that read an old head cannot fork the chain. This comes before INSERT OR REPLACE could take
-- a row away, which fires no DELETE trigger.
CREATE TRIGGER audit_goes_on_from_its_head BEFORE INSERT ON audit
WHEN NEW.seq <> 1 + coalesce((SELECT max(seq) FROM audit WHERE tenant = NEW.tenant), 0)
    OR NEW.previous <> coalesce(
        (SELECT hash FROM audit WHERE tenant = NEW.tenant ORDER BY seq DESC LIMIT 1),
        '0000000000000000000000000000000000000000000000000000000000000000')
    OR EXISTS (
        SELECT 1 FROM audit
        WHERE visit = NEW.visit AND kind = NEW.kind
            AND kind IN ('visit.started', 'decision', 'gate.requested', 'gate.answered', 'visit.ended'))
BEGIN
    SELECT RAISE(ABORT, 'the audit log is append-only: a record follows its chain''s head, and some come once');
END;

-- for postgresql:

CREATE FUNCTION audit_refuses() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the audit log is append-only: found %; allowed is INSERT', TG_OP
        USING ERRCODE = 'integrity_constraint_violation';
END
$$;

CREATE TRIGGER audit_is_not_changed BEFORE UPDATE OR DELETE OR TRUNCATE ON audit
    FOR EACH STATEMENT EXECUTE FUNCTION audit_refuses();

-- A second writer that read an old head cannot fork the chain: of two that write the same number at the same
-- moment the key lets one through.
CREATE FUNCTION audit_goes_on() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    last record;
BEGIN
    SELECT seq, hash INTO last FROM audit WHERE tenant = NEW.tenant ORDER BY seq DESC LIMIT 1;
    IF NEW.seq <> 1 + coalesce(last.seq, 0)
        OR NEW.previous <> coalesce(last.hash, repeat('0', 64)) THEN
        RAISE EXCEPTION 'the audit log is append-only: a record follows its chain''s head'
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END
$$;

CREATE TRIGGER audit_goes_on_from_its_head BEFORE INSERT ON audit
    FOR EACH ROW EXECUTE FUNCTION audit_goes_on();

-- for both:

CREATE TABLE visits (
    id                TEXT NOT NULL PRIMARY KEY,
    tenant            TEXT NOT NULL,
    started_at        TEXT NOT NULL,
    ended_at          TEXT,
    outcome           TEXT,
    reason            TEXT,
    provider          TEXT,
    intent            TEXT,
    visitor_name      TEXT,
    apartment         TEXT,
    resident          TEXT,
    gate_requested_at TEXT,
    gate_answered_at  TEXT,
    gate_opened       INTEGER,
    gate_detail       TEXT
) STRICT, WITHOUT ROWID;

CREATE INDEX visits_by_start ON visits (started_at);
CREATE INDEX visits_by_tenant ON visits (tenant, started_at);
CREATE INDEX visits_open ON visits (started_at) WHERE ended_at IS NULL;

CREATE TABLE legs (
    visit        TEXT NOT NULL REFERENCES visits (id),
    leg          TEXT NOT NULL,
    seq          INTEGER NOT NULL,
    role         TEXT NOT NULL,
    endpoint     TEXT,
    peer         TEXT,
    provider     TEXT,
    connected_at TEXT NOT NULL,
    ended_at     TEXT,
    reason       TEXT,
    recording    TEXT,
    PRIMARY KEY (visit, leg)
) STRICT, WITHOUT ROWID;

CREATE TABLE turns (
    visit       TEXT NOT NULL REFERENCES visits (id),
    seq         INTEGER NOT NULL,
    leg         TEXT NOT NULL,
    speaker     TEXT NOT NULL,
    text        TEXT NOT NULL,
    started_ms  REAL NOT NULL,
    ended_ms    REAL NOT NULL,
    response_ms REAL,
    interrupted INTEGER NOT NULL,
    heard_ms    REAL,
    PRIMARY KEY (visit, seq)
) STRICT, WITHOUT ROWID;

CREATE TABLE tool_calls (
    visit       TEXT NOT NULL REFERENCES visits (id),
    seq         INTEGER NOT NULL,
    leg         TEXT NOT NULL,
    call        TEXT NOT NULL,
    name        TEXT NOT NULL,
    arguments   TEXT NOT NULL,
    called_at   TEXT NOT NULL,
    answered_at TEXT,
    result      TEXT,
    ms          REAL,
    status      TEXT,
    PRIMARY KEY (visit, seq)
) STRICT, WITHOUT ROWID;

CREATE TABLE decisions (
    visit    TEXT NOT NULL PRIMARY KEY REFERENCES visits (id),
    seq      INTEGER NOT NULL,
    at       TEXT NOT NULL,
    decision TEXT NOT NULL CHECK (decision IN ('authorized', 'denied')),
    evidence TEXT NOT NULL,
    reason   TEXT
) STRICT, WITHOUT ROWID;
