-- Calls that differ from what is stored in anything but their version.
CREATE OR REPLACE TEMP TABLE new_call AS
WITH differing AS (
    SELECT * EXCLUDE (version) FROM regrouped
    EXCEPT
    SELECT * EXCLUDE (version) FROM old_call
)
SELECT regrouped.* FROM regrouped SEMI JOIN differing USING (call_id)
