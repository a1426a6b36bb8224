SELECT domain, trace_hi, trace_lo, span_id, start_time, content_hash
FROM span
WHERE start_time >= $start AND start_time < $end
