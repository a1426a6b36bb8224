-- Which of the suspects (one start hour) are stored already.
SELECT suspect.position
FROM suspect
SEMI JOIN (
    SELECT domain, trace_hi, trace_lo, span_id, start_time, content_hash
    FROM span
    WHERE start_time >= $start AND start_time < $end
) AS stored
USING (domain, trace_hi, trace_lo, span_id, start_time, content_hash)
