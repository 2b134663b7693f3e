-- What the lists of a review are found by: names without Portuguese's accents, and indexes in the lists' own
-- order.

-- for sqlite:

ALTER TABLE visits ADD COLUMN visitor_words TEXT GENERATED ALWAYS AS (
    replace(replace(replace(replace(replace(replace(replace(replace(replace(replace(replace(replace(replace(
    replace(replace(replace(replace(replace(replace(replace(replace(replace(replace(replace(replace(replace(
    lower(visitor_name)
    , 'Á', 'a'), 'À', 'a'), 'Â', 'a'), 'Ã', 'a'), 'É', 'e'), 'Ê', 'e'), 'Í', 'i')
    , 'Ó', 'o'), 'Ô', 'o'), 'Õ', 'o'), 'Ú', 'u'), 'Ü', 'u'), 'Ç', 'c')
    , 'á', 'a'), 'à', 'a'), 'â', 'a'), 'ã', 'a'), 'é', 'e'), 'ê', 'e'), 'í', 'i')
    , 'ó', 'o'), 'ô', 'o'), 'õ', 'o'), 'ú', 'u'), 'ü', 'u'), 'ç', 'c')
) VIRTUAL;

ALTER TABLE visits ADD COLUMN resident_words TEXT GENERATED ALWAYS AS (
    replace(replace(replace(replace(replace(replace(replace(replace(replace(replace(replace(replace(replace(
    replace(replace(replace(replace(replace(replace(replace(replace(replace(replace(replace(replace(replace(
    lower(resident)
    , 'Á', 'a'), 'À', 'a'), 'Â', 'a'), 'Ã', 'a'), 'É', 'e'), 'Ê', 'e'), 'Í', 'i')
    , 'Ó', 'o'), 'Ô', 'o'), 'Õ', 'o'), 'Ú', 'u'), 'Ü', 'u'), 'Ç', 'c')
    , 'á', 'a'), 'à', 'a'), 'â', 'a'), 'ã', 'a'), 'é', 'e'), 'ê', 'e'), 'í', 'i')
    , 'ó', 'o'), 'ô', 'o'), 'õ', 'o'), 'ú', 'u'), 'ü', 'u'), 'ç', 'c')
) VIRTUAL;

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
    (started_at, id, tenant, outcome, provider, apartment, visitor_words, resident_words);
DROP INDEX visits_by_start;

CREATE INDEX tool_calls_by_name ON tool_calls (name, visit);
CREATE INDEX decisions_by_kind ON decisions (decision, visit);
CREATE INDEX reviews_by_verdict ON reviews (verdict, visit);

CREATE INDEX audit_by_kind ON audit (kind, at, tenant, seq);
CREATE INDEX audit_by_time ON audit (tenant, at, seq, kind);
