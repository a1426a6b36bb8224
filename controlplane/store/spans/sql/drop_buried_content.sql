DELETE FROM new_content USING buried_trace
WHERE new_content.trace_lo = buried_trace.trace_lo AND new_content.trace_hi = buried_trace.trace_hi
