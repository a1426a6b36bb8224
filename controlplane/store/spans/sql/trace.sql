-- Of revisions of one span the last word, in the order that settlement uses.
WITH spans AS (
    SELECT *
    FROM span
    WHERE start_time >= $start AND start_time < $end
        AND trace_lo = $trace_lo AND trace_hi = $trace_hi AND tenant = ANY($tenants)
    QUALIFY row_number() OVER (
        PARTITION BY domain, span_id, start_time
        ORDER BY
            duration_us > 0 DESC,
            usage_state = 'exact' DESC,
            coalesce(input_tokens, 0) + coalesce(output_tokens, 0) DESC,
            duration_us DESC,
            content_hash DESC
    ) = 1
),
billing AS (
    SELECT domain, span_id, start_time, call_id
    FROM call
    WHERE start_time >= $start AND start_time < $end
        AND trace_lo = $trace_lo AND trace_hi = $trace_hi
),
member AS (
    SELECT domain, span_id, start_time, call_id, reason
    FROM call_member
    WHERE start_time >= $start AND start_time < $end
        AND trace_lo = $trace_lo AND trace_hi = $trace_hi
)
SELECT
    {columns},
    coalesce(billing.call_id, member.call_id) AS call_id,
    CASE WHEN report_kind = 'aggregate' THEN 'aggregate' ELSE member.reason END
        AS suppressed_reason
FROM spans
LEFT JOIN billing USING (domain, span_id, start_time)
LEFT JOIN member USING (domain, span_id, start_time)
ORDER BY start_time, span_id
