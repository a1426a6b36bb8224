-- The billing reports, as they were said last, of calls whose cost is a GPU's.
WITH wanted AS (
    SELECT domain, trace_hi, trace_lo, span_id, start_time, gpu_cost.cost_nusd AS gpu_nusd, pool
    FROM call
    JOIN gpu_cost USING (call_id)
    WHERE call.start_time >= $from AND call.start_time < $end
        AND (cost_reason = 'no_gpu_price' OR price_id LIKE 'gpu:%')
        AND call.cost_nusd IS DISTINCT FROM gpu_cost.cost_nusd
)
SELECT {columns}, gpu_nusd, pool
FROM span
JOIN wanted USING (domain, trace_hi, trace_lo, span_id, start_time)
WHERE span.start_time >= $from AND span.start_time < $end AND report_kind = 'call'
QUALIFY row_number() OVER (
    PARTITION BY domain, trace_hi, trace_lo, span_id, start_time
    ORDER BY
        duration_us > 0 DESC,
        usage_state = 'exact' DESC,
        coalesce(input_tokens, 0) + coalesce(output_tokens, 0) DESC,
        duration_us DESC,
        content_hash DESC
) = 1
ORDER BY start_time, trace_hi, trace_lo, span_id
