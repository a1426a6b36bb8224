-- Rows whose content is not stored, and each only once.
CREATE OR REPLACE TEMP TABLE kept_event AS
SELECT *
FROM new_event
ANTI JOIN (
    SELECT event_hash FROM call_event WHERE time >= $start AND time <= $end
) AS stored USING (event_hash)
QUALIFY row_number() OVER (PARTITION BY event_hash) = 1
