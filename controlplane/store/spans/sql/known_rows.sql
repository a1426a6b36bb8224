-- Which of the suspects, who start in the window, are stored already. Few rows start in the very
-- microsecond of a suspect: no other column of the rest is read.
SELECT suspect.position
FROM suspect
SEMI JOIN (
    SELECT domain, trace_hi, trace_lo, span_id, start_time, content_hash
    FROM span
    WHERE
        start_time >= $start AND start_time < $end
        AND start_time IN (SELECT suspect.start_time FROM suspect)
) AS stored
USING (domain, trace_hi, trace_lo, span_id, start_time, content_hash)
