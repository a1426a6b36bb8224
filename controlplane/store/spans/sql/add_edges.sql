INSERT INTO edge
SELECT domain, trace_hi, trace_lo, span_id, parent_span_id
FROM span
SEMI JOIN member USING (trace_lo)
WHERE start_time >= $start AND start_time < $end AND batch_seq <= $through
