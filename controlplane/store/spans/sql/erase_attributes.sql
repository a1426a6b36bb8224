-- The whole trace was about the subject's request: what other spans of the tenant say in their own
-- words goes too, but for what they used.
UPDATE span_fact SET attributes = usage_attributes(attributes)
FROM (SELECT DISTINCT trace_hi, trace_lo, tenant, domain FROM subject_span) AS trace, span_context
WHERE span_fact.context_id = span_context.context_id
    AND span_context.tenant = trace.tenant AND span_context.domain = trace.domain
    AND span_fact.trace_lo = trace.trace_lo AND span_fact.trace_hi = trace.trace_hi
    AND span_fact.attributes IS NOT NULL
