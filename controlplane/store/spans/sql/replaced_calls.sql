-- What the reports examined were before: calls they bill, and calls they are members of.
CREATE OR REPLACE TEMP TABLE old_call AS
WITH named AS (
    SELECT call_id
    FROM call
    SEMI JOIN examined USING (domain, trace_hi, trace_lo, span_id, start_time)
    WHERE call.start_time >= $start AND call.start_time < $end
    UNION
    SELECT call_id
    FROM call_member
    SEMI JOIN examined USING (domain, trace_hi, trace_lo, span_id, start_time)
    WHERE call_member.start_time >= $start AND call_member.start_time < $end
)
SELECT call.*
FROM call
SEMI JOIN named USING (call_id)
WHERE start_time >= $start AND start_time < $end
