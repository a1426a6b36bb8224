INSERT INTO context
SELECT trace_lo, span_id, start_time
FROM member
ANTI JOIN known USING (trace_lo, span_id, start_time)
ANTI JOIN context USING (trace_lo, span_id, start_time)
