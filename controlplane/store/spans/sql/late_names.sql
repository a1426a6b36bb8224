-- A mark names the call that the report would be of, as it is known now.
UPDATE call_member SET call_id = settled_side.call_id
FROM settled_side
WHERE call_member.reason = 'late'
    AND call_member.start_time >= $start AND call_member.start_time < $closed
    AND call_member.trace_lo = settled_side.trace_lo
    AND call_member.span_id = settled_side.span_id
    AND call_member.start_time = settled_side.start_time
    AND call_member.trace_hi = settled_side.trace_hi AND call_member.domain = settled_side.domain
