-- Calls that stay as they are stored: still lone, or copied before and unchanged.
CREATE OR REPLACE TEMP TABLE kept_call AS
SELECT call_id FROM lone_still
UNION
SELECT call_id FROM old_call WHERE NOT is_lone AND call_id IN (FROM unchanged)
