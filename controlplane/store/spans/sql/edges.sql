SELECT domain, trace_hi, trace_lo, span_id, max(parent_span_id) AS parent_span_id
FROM edge
GROUP BY ALL
