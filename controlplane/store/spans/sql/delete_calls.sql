DELETE FROM grouped_call
USING old_call
WHERE grouped_call.start_time >= $start AND grouped_call.start_time < $end
    AND grouped_call.start_time = old_call.start_time
    AND grouped_call.trace_lo = old_call.trace_lo AND grouped_call.span_id = old_call.span_id
    AND grouped_call.trace_hi = old_call.trace_hi AND grouped_call.domain = old_call.domain
    AND grouped_call.call_id = old_call.call_id
