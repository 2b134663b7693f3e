-- What a visit cost, by its last record of that: whole billionths of the currency and of a US dollar, so that
-- sums are exact.

ALTER TABLE visits ADD COLUMN cost INTEGER;
ALTER TABLE visits ADD COLUMN cost_usd INTEGER;
ALTER TABLE visits ADD COLUMN currency TEXT;
ALTER TABLE visits ADD COLUMN cost_complete INTEGER;
