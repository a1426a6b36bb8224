UPDATE span SET is_grouped = true
FROM (
    SELECT DISTINCT domain, trace_hi, trace_lo, span_id, start_time
    FROM examined
    ANTI JOIN lone_still USING (domain, trace_hi, trace_lo, span_id, start_time)
) AS joined
WHERE span.start_time >= $start AND span.start_time < $end
    AND span.trace_lo = joined.trace_lo AND span.span_id = joined.span_id
    AND span.start_time = joined.start_time AND span.trace_hi = joined.trace_hi
    AND span.domain = joined.domain AND span.report_kind = 'call' AND NOT span.is_grouped
