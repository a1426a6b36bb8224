-- What to look up: keys of new reports and traces of new spans, each on its own day and those beside.
CREATE OR REPLACE TEMP TABLE followed AS
SELECT DISTINCT key_hash, day + step AS day
FROM (
    SELECT key_hash, day_of(start_time) AS day FROM new_key WHERE kind <> 5
    UNION
    SELECT key_hash, hour // 24 FROM new_trace
)
CROSS JOIN (SELECT unnest([-1, 0, 1]) AS step)
