SELECT call_id, trace_hi, trace_lo, span_id, start_time, reason
FROM call_member
WHERE call_id = ANY($call_ids)
ORDER BY call_id, start_time, span_id
