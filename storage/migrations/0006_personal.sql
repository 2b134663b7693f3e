-- What records say of people, beside their chain: the chain carries a commitment to it, so that it can be erased.

CREATE TABLE audit_personal (
    tenant TEXT NOT NULL,
    seq    INTEGER NOT NULL CHECK (seq >= 1),
    salt   TEXT NOT NULL,
    data   TEXT NOT NULL,
    PRIMARY KEY (tenant, seq)
) STRICT, WITHOUT ROWID;

-- What was erased of which visit, by which record of its tenant's chain. Follows from the records
-- `person.erased` and `retention.carried_out`.
CREATE TABLE erasures (
    visit  TEXT NOT NULL,
    scope  TEXT NOT NULL CHECK (scope IN ('recordings', 'transcripts', 'visit')),
    tenant TEXT NOT NULL,
    seq    INTEGER NOT NULL,
    at     TEXT NOT NULL,
    PRIMARY KEY (visit, scope, seq)
) STRICT, WITHOUT ROWID;

CREATE INDEX erasures_by_tenant ON erasures (tenant, seq);

-- Recordings that are to go, and the service that has them: noted with the erasure, crossed out when the file
-- is gone.
CREATE TABLE recordings_to_remove (
    recording TEXT NOT NULL PRIMARY KEY,
    service   TEXT
) STRICT, WITHOUT ROWID;

-- for sqlite:

CREATE TRIGGER audit_personal_is_not_changed BEFORE UPDATE ON audit_personal
BEGIN
    SELECT RAISE(ABORT, 'what a record says of people is not changed: it is kept, or erased');
END;

CREATE TRIGGER audit_personal_is_erased_on_record BEFORE DELETE ON audit_personal
WHEN NOT EXISTS (
    SELECT 1 FROM audit a JOIN erasures e ON e.visit = a.visit
    WHERE a.tenant = OLD.tenant AND a.seq = OLD.seq AND e.tenant = OLD.tenant AND e.seq > OLD.seq
        AND e.scope <> 'recordings')
BEGIN
    SELECT RAISE(ABORT, 'what a record says of people is erased only with a record of that');
END;

-- This comes before INSERT OR REPLACE could take a row away, which fires no DELETE trigger.
CREATE TRIGGER audit_personal_is_kept_once BEFORE INSERT ON audit_personal
WHEN EXISTS (SELECT 1 FROM audit_personal WHERE tenant = NEW.tenant AND seq = NEW.seq)
BEGIN
    SELECT RAISE(ABORT, 'what a record says of people is kept once');
END;

CREATE TRIGGER erasures_are_not_changed BEFORE UPDATE ON erasures
BEGIN
    SELECT RAISE(ABORT, 'an erasure stands');
END;

CREATE TRIGGER erasures_are_not_deleted BEFORE DELETE ON erasures
BEGIN
    SELECT RAISE(ABORT, 'an erasure stands');
END;

CREATE TRIGGER erasures_are_on_record BEFORE INSERT ON erasures
WHEN NOT EXISTS (
        SELECT 1 FROM audit WHERE tenant = NEW.tenant AND seq = NEW.seq
            AND kind IN ('person.erased', 'retention.carried_out'))
    OR EXISTS (SELECT 1 FROM erasures WHERE visit = NEW.visit AND scope = NEW.scope AND seq = NEW.seq)
BEGIN
    SELECT RAISE(ABORT, 'an erasure needs a record of it');
END;

-- for postgresql:

CREATE FUNCTION audit_personal_refuses() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'what a record says of people is kept, or erased: found %', TG_OP
        USING ERRCODE = 'integrity_constraint_violation';
END
$$;

CREATE TRIGGER audit_personal_is_not_changed BEFORE UPDATE OR TRUNCATE ON audit_personal
    FOR EACH STATEMENT EXECUTE FUNCTION audit_personal_refuses();

CREATE FUNCTION audit_personal_erased() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (
        SELECT 1 FROM audit a JOIN erasures e ON e.visit = a.visit
        WHERE a.tenant = OLD.tenant AND a.seq = OLD.seq AND e.tenant = OLD.tenant AND e.seq > OLD.seq
            AND e.scope <> 'recordings') THEN
        RAISE EXCEPTION 'what a record says of people is erased only with a record of that'
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN OLD;
END
$$;

CREATE TRIGGER audit_personal_is_erased_on_record BEFORE DELETE ON audit_personal
    FOR EACH ROW EXECUTE FUNCTION audit_personal_erased();

CREATE FUNCTION erasures_stand() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'an erasure stands' USING ERRCODE = 'integrity_constraint_violation';
END
$$;

CREATE TRIGGER erasures_are_not_changed BEFORE UPDATE OR DELETE OR TRUNCATE ON erasures
    FOR EACH STATEMENT EXECUTE FUNCTION erasures_stand();

CREATE FUNCTION erasures_need_a_record() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (
        SELECT 1 FROM audit WHERE tenant = NEW.tenant AND seq = NEW.seq
            AND kind IN ('person.erased', 'retention.carried_out')) THEN
        RAISE EXCEPTION 'an erasure needs a record of it' USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NULL;
END
$$;

-- At the commit: a transaction's records are written at its end.
CREATE CONSTRAINT TRIGGER erasures_are_on_record AFTER INSERT ON erasures
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION erasures_need_a_record();
