-- Each chain's last record, a second time: what is cut off from a chain's end, or a chain that is gone, shows.

CREATE TABLE heads (
    tenant TEXT NOT NULL PRIMARY KEY,
    seq    INTEGER NOT NULL CHECK (seq >= 1),
    hash   TEXT NOT NULL
) STRICT, WITHOUT ROWID;

INSERT INTO heads (tenant, seq, hash)
    SELECT a.tenant, a.seq, a.hash FROM audit AS a
    WHERE a.seq = (SELECT max(b.seq) FROM audit AS b WHERE b.tenant = a.tenant);

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
