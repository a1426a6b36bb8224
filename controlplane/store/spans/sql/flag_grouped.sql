UPDATE span_fact SET is_grouped = true
FROM (
    SELECT DISTINCT domain, trace_hi, trace_lo, span_id, start_time
    FROM examined
    ANTI JOIN lone_still USING (domain, trace_hi, trace_lo, span_id, start_time)
) AS joined
WHERE span_fact.start_time >= $start AND span_fact.start_time < $end
    AND span_fact.trace_lo = joined.trace_lo AND span_fact.span_id = joined.span_id
    AND span_fact.start_time = joined.start_time AND span_fact.trace_hi = joined.trace_hi
    AND NOT span_fact.is_grouped
    AND (span_fact.context_id, joined.domain)
        IN (SELECT (context_id, domain) FROM span_context WHERE report_kind = 'call')
