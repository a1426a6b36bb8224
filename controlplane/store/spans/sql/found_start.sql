-- The new reports that have a key which another has, new or found, or that can be matched minute by
-- minute (kind 5).
CREATE OR REPLACE TEMP TABLE interesting AS
SELECT key_hash FROM repeated UNION SELECT key_hash FROM found;
INSERT INTO found
SELECT *, true
FROM new_key
SEMI JOIN (
    SELECT trace_lo, span_id, start_time
    FROM new_key
    WHERE kind = 5 OR key_hash IN (SELECT key_hash FROM interesting)
) AS chosen USING (trace_lo, span_id, start_time)
