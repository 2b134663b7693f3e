-- Which records of a tenant are told to another system, and those that are still to be told (docs/webhooks.md).

CREATE TABLE webhook_subscriptions (
    tenant  TEXT NOT NULL,
    kind    TEXT NOT NULL,
    service TEXT NOT NULL,
    PRIMARY KEY (tenant, kind)
) STRICT, WITHOUT ROWID;

-- Which service sends a tenant's, where several could; it counts on while it does.
CREATE TABLE webhook_senders (
    tenant TEXT NOT NULL PRIMARY KEY,
    sender TEXT NOT NULL,
    beat   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Names a record, and has nothing of what it says: what is sent is read from the record when it is sent.
-- next_at: "" is at once. A row goes when the record was told.
CREATE TABLE webhook_outbox (
    tenant      TEXT NOT NULL,
    seq         INTEGER NOT NULL,
    visit       TEXT NOT NULL,
    kind        TEXT NOT NULL,
    since       TEXT NOT NULL,
    next_at     TEXT NOT NULL,
    attempts    INTEGER NOT NULL,
    answer      TEXT NOT NULL,
    given_up_at TEXT,
    PRIMARY KEY (tenant, seq)
) STRICT, WITHOUT ROWID;

CREATE INDEX webhook_outbox_by_turn ON webhook_outbox (tenant, next_at, seq) WHERE given_up_at IS NULL;
CREATE INDEX webhook_outbox_by_age ON webhook_outbox (since) WHERE given_up_at IS NULL;
CREATE INDEX webhook_outbox_given_up ON webhook_outbox (tenant, seq) WHERE given_up_at IS NOT NULL;
CREATE INDEX webhook_outbox_by_visit ON webhook_outbox (visit, seq);

-- In the record's own transaction, whoever writes it. What follows an event of its visit waits with that.

-- for sqlite:

CREATE TRIGGER audit_is_told AFTER INSERT ON audit
WHEN NEW.kind IN ('visit.started', 'decision', 'visit.ended')
BEGIN
    INSERT INTO webhook_outbox (tenant, seq, visit, kind, since, next_at, attempts, answer)
        SELECT NEW.tenant, NEW.seq, NEW.visit, NEW.kind, NEW.at, coalesce((
            SELECT max(o.next_at) FROM webhook_outbox o
            WHERE o.visit = NEW.visit AND o.tenant = NEW.tenant AND o.given_up_at IS NULL), ''), 0, ''
        FROM webhook_subscriptions s WHERE s.tenant = NEW.tenant AND s.kind = NEW.kind;
END;

-- for postgresql:

CREATE FUNCTION audit_tells() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO webhook_outbox (tenant, seq, visit, kind, since, next_at, attempts, answer)
        SELECT NEW.tenant, NEW.seq, NEW.visit, NEW.kind, NEW.at, coalesce((
            SELECT max(o.next_at) FROM webhook_outbox o
            WHERE o.visit = NEW.visit AND o.tenant = NEW.tenant AND o.given_up_at IS NULL), ''), 0, ''
        FROM webhook_subscriptions s WHERE s.tenant = NEW.tenant AND s.kind = NEW.kind;
    RETURN NULL;
END
$$;

CREATE TRIGGER audit_is_told AFTER INSERT ON audit FOR EACH ROW
    WHEN (NEW.kind IN ('visit.started', 'decision', 'visit.ended')) EXECUTE FUNCTION audit_tells();
