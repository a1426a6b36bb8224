-- How far the stored start of each suspect was moved back, where it was: suspects are as emitters
-- say, the window holds the stored starts.
SELECT suspect.position, min(stored.clock_ahead_us)
FROM suspect
INNER JOIN (
    SELECT domain, trace_hi, trace_lo, span_id, start_time, clock_ahead_us
    FROM span
    WHERE
        clock_ahead_us IS NOT NULL
        AND start_time >= $start AND start_time < $end
) AS stored
    USING (domain, trace_hi, trace_lo, span_id)
WHERE suspect.start_time = stored.start_time + to_microseconds(stored.clock_ahead_us)
GROUP BY suspect.position
