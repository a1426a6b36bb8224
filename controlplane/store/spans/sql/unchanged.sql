-- Calls that differ from what is stored in nothing but their version.
CREATE OR REPLACE TEMP TABLE unchanged AS
SELECT call_id
FROM (
    SELECT * EXCLUDE (version) FROM regrouped
    INTERSECT
    SELECT * EXCLUDE (version, is_lone) FROM old_call
)
