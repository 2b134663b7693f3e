-- Each chain's last record, a second time: what is cut off from a chain's end, or a chain that is gone, shows.

CREATE TABLE heads (
    tenant TEXT NOT NULL PRIMARY KEY,
    seq    INTEGER NOT NULL CHECK (seq >= 1),
    hash   TEXT NOT NULL
) STRICT, WITHOUT ROWID;

INSERT INTO heads (tenant, seq, hash)
    SELECT a.tenant, a.seq, a.hash FROM audit AS a
    WHERE a.seq = (SELECT max(b.seq) FROM audit AS b WHERE b.tenant = a.tenant);

-- for sqlite:

CREATE TRIGGER audit_moves_its_head AFTER INSERT ON audit
BEGIN
    INSERT INTO heads (tenant, seq, hash) VALUES (NEW.tenant, NEW.seq, NEW.hash)
        ON CONFLICT (tenant) DO UPDATE SET seq = excluded.seq, hash = excluded.hash;
END;

CREATE TRIGGER heads_go_on BEFORE UPDATE ON heads
WHEN NEW.tenant <> OLD.tenant OR NEW.seq <> OLD.seq + 1
BEGIN
    SELECT RAISE(ABORT, 'a chain''s head moves with its records');
END;

CREATE TRIGGER heads_are_not_deleted BEFORE DELETE ON heads
BEGIN
    SELECT RAISE(ABORT, 'a chain''s head is not deleted');
END;

-- for postgresql:

CREATE FUNCTION audit_moves_head() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO heads (tenant, seq, hash) VALUES (NEW.tenant, NEW.seq, NEW.hash)
        ON CONFLICT (tenant) DO UPDATE SET seq = excluded.seq, hash = excluded.hash;
    RETURN NULL;
END
$$;

CREATE TRIGGER audit_moves_its_head AFTER INSERT ON audit
    FOR EACH ROW EXECUTE FUNCTION audit_moves_head();

CREATE FUNCTION heads_go_on() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.tenant <> OLD.tenant OR NEW.seq <> OLD.seq + 1 THEN
        RAISE EXCEPTION 'a chain''s head moves with its records'
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END
$$;

CREATE TRIGGER heads_go_on BEFORE UPDATE ON heads FOR EACH ROW EXECUTE FUNCTION heads_go_on();

CREATE FUNCTION heads_stay() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'a chain''s head is not deleted' USING ERRCODE = 'integrity_constraint_violation';
END
$$;

CREATE TRIGGER heads_are_not_deleted BEFORE DELETE OR TRUNCATE ON heads
    FOR EACH STATEMENT EXECUTE FUNCTION heads_stay();
