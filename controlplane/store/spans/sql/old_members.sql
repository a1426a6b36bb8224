INSERT INTO old_member
SELECT call_member.*
FROM call_member
SEMI JOIN examined USING (domain, trace_hi, trace_lo, span_id, start_time)
WHERE start_time >= $start AND start_time < $end
