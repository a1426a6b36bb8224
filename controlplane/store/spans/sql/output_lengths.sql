-- The grid of detection.drift: floor(ln v / ln 1.1).
SELECT
    coalesce(billing_model, response_model, request_model) AS model,
    CAST(floor(ln(output_tokens) / ln(1.1)) AS BIGINT) AS bin,
    count(*) AS calls
FROM call
WHERE start_time >= $start AND start_time < $end AND tenant = ANY($tenants)
    AND status = 'ok' AND output_tokens > 0
GROUP BY ALL
ORDER BY ALL
