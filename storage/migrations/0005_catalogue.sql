-- The catalogue: tenants and their settings, directories, who may do what; and what reviewers said of visits.

-- One row, moved by every transaction that changes what a running service has to take over.
CREATE TABLE catalogue_changes (
    id      INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
    counter INTEGER NOT NULL CHECK (counter >= 0)
) STRICT;

INSERT INTO catalogue_changes (id, counter) VALUES (1, 0);

-- Which version of the settings is in force. A tenant that was removed may come back.
CREATE TABLE tenants (
    id      TEXT NOT NULL PRIMARY KEY,
    version INTEGER NOT NULL CHECK (version >= 1),
    removed INTEGER NOT NULL,
    changed INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX tenants_by_change ON tenants (changed);

-- Every version that was in force, of tenants of the files too; without content: it was removed.
CREATE TABLE settings_versions (
    tenant  TEXT NOT NULL,
    version INTEGER NOT NULL CHECK (version >= 1),
    at      TEXT NOT NULL,
    author  TEXT NOT NULL,
    source  TEXT NOT NULL,
    content TEXT,
    digest  TEXT NOT NULL,
    PRIMARY KEY (tenant, version)
) STRICT, WITHOUT ROWID;

-- Which dialled number (a SIP number too) and which port belongs to whom.
CREATE TABLE numbers (
    kind   TEXT NOT NULL CHECK (kind IN ('number', 'port')),
    value  TEXT NOT NULL,
    tenant TEXT NOT NULL REFERENCES tenants (id),
    PRIMARY KEY (kind, value)
) STRICT, WITHOUT ROWID;

CREATE INDEX numbers_by_tenant ON numbers (tenant);

-- A tenant's apartments as a whole; its tenant may be one of the files.
CREATE TABLE directories (
    tenant  TEXT NOT NULL PRIMARY KEY,
    version INTEGER NOT NULL CHECK (version >= 1),
    at      TEXT NOT NULL,
    author  TEXT NOT NULL,
    changed INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX directories_by_change ON directories (changed);

-- "label" is "102 bloco B"; "words" is the label and the residents' names, folded, to be searched in.
-- Lists are JSON, in their order.
CREATE TABLE apartments (
    tenant   TEXT NOT NULL REFERENCES directories (tenant),
    position INTEGER NOT NULL,
    label    TEXT NOT NULL,
    number   TEXT NOT NULL,
    block    TEXT,
    dial     TEXT NOT NULL,
    words    TEXT NOT NULL,
    PRIMARY KEY (tenant, position)
) STRICT, WITHOUT ROWID;

CREATE UNIQUE INDEX apartments_by_label ON apartments (tenant, label);

-- "contact": whether the directory says more of them than a name.
CREATE TABLE residents (
    tenant      TEXT NOT NULL,
    apartment   INTEGER NOT NULL,
    position    INTEGER NOT NULL,
    name        TEXT NOT NULL,
    contact     INTEGER NOT NULL,
    dial        TEXT NOT NULL,
    quiet       TEXT NOT NULL,
    do_not_call INTEGER NOT NULL,
    PRIMARY KEY (tenant, apartment, position),
    FOREIGN KEY (tenant, apartment) REFERENCES apartments (tenant, position)
) STRICT, WITHOUT ROWID;

CREATE TABLE standing_authorisations (
    tenant        TEXT NOT NULL,
    apartment     INTEGER NOT NULL,
    position      INTEGER NOT NULL,
    id            TEXT NOT NULL,
    name          TEXT NOT NULL,
    days          TEXT NOT NULL,
    hours         TEXT,
    until         TEXT,
    call_resident INTEGER NOT NULL,
    PRIMARY KEY (tenant, apartment, position),
    FOREIGN KEY (tenant, apartment) REFERENCES apartments (tenant, position)
) STRICT, WITHOUT ROWID;

CREATE UNIQUE INDEX standing_by_id ON standing_authorisations (tenant, id);

-- Who logs in to the pages. Without a tenant: for all.
CREATE TABLE operators (
    login         TEXT NOT NULL PRIMARY KEY,
    name          TEXT NOT NULL,
    password_hash TEXT NOT NULL,
    role          TEXT NOT NULL CHECK (role IN ('admin', 'manager', 'reviewer', 'viewer')),
    tenant        TEXT,
    disabled      INTEGER NOT NULL,
    created_at    TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE operator_sessions (
    id_hash    TEXT NOT NULL PRIMARY KEY,
    login      TEXT NOT NULL REFERENCES operators (login),
    csrf       TEXT NOT NULL,
    began_at   TEXT NOT NULL,
    expires_at TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX operator_sessions_by_login ON operator_sessions (login);

CREATE TABLE api_keys (
    id          TEXT NOT NULL PRIMARY KEY,
    name        TEXT NOT NULL,
    secret_hash TEXT NOT NULL,
    role        TEXT NOT NULL CHECK (role IN ('admin', 'manager', 'reviewer', 'viewer', 'pbx')),
    scopes      TEXT,
    tenant      TEXT,
    created_at  TEXT NOT NULL,
    created_by  TEXT NOT NULL,
    expires_at  TEXT,
    revoked_at  TEXT,
    used_at     TEXT
) STRICT, WITHOUT ROWID;

-- The last word of a reviewer on a visit; follows from the records `visit.reviewed`.
CREATE TABLE reviews (
    visit    TEXT NOT NULL PRIMARY KEY REFERENCES visits (id),
    seq      INTEGER NOT NULL,
    at       TEXT NOT NULL,
    reviewer TEXT NOT NULL,
    verdict  TEXT NOT NULL CHECK (verdict IN ('right', 'wrong')),
    note     TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- for sqlite:

CREATE TRIGGER settings_versions_are_not_changed BEFORE UPDATE ON settings_versions
BEGIN
    SELECT RAISE(ABORT, 'versions of settings are append-only: none can be changed');
END;

CREATE TRIGGER settings_versions_are_not_deleted BEFORE DELETE ON settings_versions
BEGIN
    SELECT RAISE(ABORT, 'versions of settings are append-only: none can be deleted');
END;

-- This comes before INSERT OR REPLACE could take a row away, which fires no DELETE trigger.
CREATE TRIGGER settings_versions_go_on BEFORE INSERT ON settings_versions
WHEN NEW.version <> 1 + coalesce((SELECT max(version) FROM settings_versions WHERE tenant = NEW.tenant), 0)
BEGIN
    SELECT RAISE(ABORT, 'versions of settings are append-only: one follows the last');
END;

CREATE TRIGGER catalogue_counter_goes_on BEFORE UPDATE ON catalogue_changes
WHEN NEW.counter <= OLD.counter
BEGIN
    SELECT RAISE(ABORT, 'the counter of changes only goes on');
END;

-- for postgresql:

CREATE FUNCTION settings_versions_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'versions of settings are append-only: found %; allowed is INSERT', TG_OP
        USING ERRCODE = 'integrity_constraint_violation';
END
$$;

CREATE TRIGGER settings_versions_are_not_changed BEFORE UPDATE OR DELETE OR TRUNCATE ON settings_versions
    FOR EACH STATEMENT EXECUTE FUNCTION settings_versions_refuse();

CREATE FUNCTION settings_versions_follow() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.version <> 1 + coalesce(
        (SELECT max(version) FROM settings_versions WHERE tenant = NEW.tenant), 0) THEN
        RAISE EXCEPTION 'versions of settings are append-only: one follows the last'
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END
$$;

CREATE TRIGGER settings_versions_go_on BEFORE INSERT ON settings_versions
    FOR EACH ROW EXECUTE FUNCTION settings_versions_follow();

CREATE FUNCTION catalogue_counter_moves() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.counter <= OLD.counter THEN
        RAISE EXCEPTION 'the counter of changes only goes on'
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    -- Told when the transaction is committed.
    PERFORM pg_notify('porteiro_catalogue', NEW.counter::text);
    RETURN NEW;
END
$$;

CREATE TRIGGER catalogue_counter_goes_on BEFORE UPDATE ON catalogue_changes
    FOR EACH ROW EXECUTE FUNCTION catalogue_counter_moves();
