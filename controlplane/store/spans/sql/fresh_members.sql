-- Settled members whose own keys were not followed yet.
CREATE OR REPLACE TEMP TABLE fresh AS
SELECT trace_lo, span_id, start_time
FROM member
ANTI JOIN expanded USING (trace_lo, span_id, start_time)
WHERE NOT is_new
