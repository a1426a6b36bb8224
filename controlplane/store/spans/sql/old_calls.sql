-- What the reports examined were before: calls they bill, and calls they are members of.
CREATE OR REPLACE TEMP TABLE old_call AS
WITH named AS (
    SELECT call_id
    FROM call
    SEMI JOIN examined USING (domain, trace_hi, trace_lo, span_id, start_time)
    WHERE call.start_time >= $start AND call.start_time < $end
    UNION
    SELECT call_id FROM old_member
)
SELECT
    call.*,
    call_id NOT IN (
        SELECT call_id FROM grouped_call WHERE start_time >= $start AND start_time < $end
    ) AS is_lone
FROM call
SEMI JOIN named USING (call_id)
WHERE start_time >= $start AND start_time < $end
