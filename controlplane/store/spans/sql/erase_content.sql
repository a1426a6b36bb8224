DELETE FROM span_content
USING (SELECT DISTINCT trace_hi, trace_lo, tenant, domain FROM subject_span) AS trace
WHERE span_content.trace_lo = trace.trace_lo AND span_content.trace_hi = trace.trace_hi
    AND span_content.tenant = trace.tenant AND span_content.domain = trace.domain
