DELETE FROM call_member
USING old_member
WHERE call_member.start_time >= $start AND call_member.start_time < $end
    AND call_member.trace_lo = old_member.trace_lo AND call_member.span_id = old_member.span_id
    AND call_member.start_time = old_member.start_time
    AND call_member.trace_hi = old_member.trace_hi AND call_member.domain = old_member.domain
