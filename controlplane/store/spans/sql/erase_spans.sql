UPDATE span_fact SET user_id = NULL
FROM subject_span, span_context
WHERE span_fact.context_id = span_context.context_id
    AND span_context.tenant = subject_span.tenant
    AND span_context.domain = subject_span.domain
    AND span_fact.start_time = subject_span.start_time
    AND span_fact.trace_lo = subject_span.trace_lo AND span_fact.trace_hi = subject_span.trace_hi
    AND span_fact.span_id = subject_span.span_id
