-- What the lists of a review are found by: a visit's decision and its last review in its own row, names without
-- Portuguese's accents, and indexes in the lists' own order.

ALTER TABLE visits ADD COLUMN decision TEXT;
ALTER TABLE visits ADD COLUMN verdict TEXT;

UPDATE visits SET decision = (SELECT d.decision FROM decisions d WHERE d.visit = visits.id);

-- for sqlite:

ALTER TABLE visits ADD COLUMN visitor_words TEXT;
ALTER TABLE visits ADD COLUMN resident_words TEXT;

-- Triggers, and no generated columns: SQLite would compute those anew for each row that a search looks at.
CREATE TRIGGER visits_are_found_by_new_names AFTER INSERT ON visits
WHEN NEW.visitor_name IS NOT NULL OR NEW.resident IS NOT NULL
BEGIN
    UPDATE visits SET
        visitor_words =
            replace(replace(replace(replace(replace(replace(replace(replace(replace(replace(
            replace(replace(replace(replace(replace(replace(replace(replace(replace(replace(
            replace(replace(replace(replace(replace(replace(lower(NEW.visitor_name)
                , 'Á', 'a'), 'À', 'a'), 'Â', 'a'), 'Ã', 'a'), 'É', 'e'), 'Ê', 'e'), 'Í', 'i')
                , 'Ó', 'o'), 'Ô', 'o'), 'Õ', 'o'), 'Ú', 'u'), 'Ü', 'u'), 'Ç', 'c')
                , 'á', 'a'), 'à', 'a'), 'â', 'a'), 'ã', 'a'), 'é', 'e'), 'ê', 'e'), 'í', 'i')
                , 'ó', 'o'), 'ô', 'o'), 'õ', 'o'), 'ú', 'u'), 'ü', 'u'), 'ç', 'c'),
        resident_words =
            replace(replace(replace(replace(replace(replace(replace(replace(replace(replace(
            replace(replace(replace(replace(replace(replace(replace(replace(replace(replace(
            replace(replace(replace(replace(replace(replace(lower(NEW.resident)
                , 'Á', 'a'), 'À', 'a'), 'Â', 'a'), 'Ã', 'a'), 'É', 'e'), 'Ê', 'e'), 'Í', 'i')
                , 'Ó', 'o'), 'Ô', 'o'), 'Õ', 'o'), 'Ú', 'u'), 'Ü', 'u'), 'Ç', 'c')
                , 'á', 'a'), 'à', 'a'), 'â', 'a'), 'ã', 'a'), 'é', 'e'), 'ê', 'e'), 'í', 'i')
                , 'ó', 'o'), 'ô', 'o'), 'õ', 'o'), 'ú', 'u'), 'ü', 'u'), 'ç', 'c')
    WHERE id = NEW.id;
END;

CREATE TRIGGER visits_are_found_by_names AFTER UPDATE OF visitor_name, resident ON visits
BEGIN
    UPDATE visits SET
        visitor_words =
            replace(replace(replace(replace(replace(replace(replace(replace(replace(replace(
            replace(replace(replace(replace(replace(replace(replace(replace(replace(replace(
            replace(replace(replace(replace(replace(replace(lower(NEW.visitor_name)
                , 'Á', 'a'), 'À', 'a'), 'Â', 'a'), 'Ã', 'a'), 'É', 'e'), 'Ê', 'e'), 'Í', 'i')
                , 'Ó', 'o'), 'Ô', 'o'), 'Õ', 'o'), 'Ú', 'u'), 'Ü', 'u'), 'Ç', 'c')
                , 'á', 'a'), 'à', 'a'), 'â', 'a'), 'ã', 'a'), 'é', 'e'), 'ê', 'e'), 'í', 'i')
                , 'ó', 'o'), 'ô', 'o'), 'õ', 'o'), 'ú', 'u'), 'ü', 'u'), 'ç', 'c'),
        resident_words =
            replace(replace(replace(replace(replace(replace(replace(replace(replace(replace(
            replace(replace(replace(replace(replace(replace(replace(replace(replace(replace(
            replace(replace(replace(replace(replace(replace(lower(NEW.resident)
                , 'Á', 'a'), 'À', 'a'), 'Â', 'a'), 'Ã', 'a'), 'É', 'e'), 'Ê', 'e'), 'Í', 'i')
                , 'Ó', 'o'), 'Ô', 'o'), 'Õ', 'o'), 'Ú', 'u'), 'Ü', 'u'), 'Ç', 'c')
                , 'á', 'a'), 'à', 'a'), 'â', 'a'), 'ã', 'a'), 'é', 'e'), 'ê', 'e'), 'í', 'i')
                , 'ó', 'o'), 'ô', 'o'), 'õ', 'o'), 'ú', 'u'), 'ü', 'u'), 'ç', 'c')
    WHERE id = NEW.id;
END;

UPDATE visits SET visitor_name = visitor_name WHERE visitor_name IS NOT NULL OR resident IS NOT NULL;

-- for postgresql:

ALTER TABLE visits ADD COLUMN visitor_words TEXT COLLATE "C" GENERATED ALWAYS AS (
    lower(translate(visitor_name, 'ÁÀÂÃÉÊÍÓÔÕÚÜÇáàâãéêíóôõúüç', 'aaaaeeiooouucaaaaeeiooouuc'))
) STORED;

ALTER TABLE visits ADD COLUMN resident_words TEXT COLLATE "C" GENERATED ALWAYS AS (
    lower(translate(resident, 'ÁÀÂÃÉÊÍÓÔÕÚÜÇáàâãéêíóôõúüç', 'aaaaeeiooouucaaaaeeiooouuc'))
) STORED;

-- for both:

-- All that a filter asks of a visit, so that those which do not fit are passed over without being looked up.
CREATE INDEX visits_listed ON visits
    (started_at, id, tenant, outcome, decision, verdict, provider, apartment, visitor_words, resident_words);
DROP INDEX visits_by_start;
CREATE INDEX visits_listed_by_tenant ON visits
    (tenant, started_at, id, outcome, decision, verdict, provider, apartment, visitor_words, resident_words);
DROP INDEX visits_by_tenant;

CREATE INDEX tool_calls_by_name ON tool_calls (name, visit);

CREATE INDEX audit_by_kind ON audit (kind, at, tenant, seq);
CREATE INDEX audit_by_time ON audit (tenant, at, seq, kind);
