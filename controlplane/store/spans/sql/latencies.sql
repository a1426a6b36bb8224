SELECT
    coalesce(billing_model, response_model, request_model) AS model,
    operation,
    len(list_filter($bounds, bound -> bound < duration_us)) AS bucket,
    count(*) AS calls,
    sum(duration_us) AS duration_us
FROM call
WHERE start_time >= $start AND start_time < $end AND tenant = ANY($tenants){filters}
GROUP BY ALL
ORDER BY ALL
