-- What the reports examined were before: calls that they bill.
INSERT INTO old_call BY NAME
SELECT
    call.*,
    (domain, trace_hi, trace_lo, span_id, start_time) NOT IN (
        SELECT (domain, trace_hi, trace_lo, span_id, start_time)
        FROM grouped_call
        WHERE start_time >= $start AND start_time < $end
    ) AS is_lone
FROM call
SEMI JOIN examined USING (domain, trace_hi, trace_lo, span_id, start_time)
WHERE start_time >= $start AND start_time < $end
