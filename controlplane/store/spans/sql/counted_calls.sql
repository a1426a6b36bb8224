SELECT
    tenant, service_name, layers,
    coalesce(billing_model, response_model, request_model) AS model,
    request_model,
    count(*) AS calls,
    least(coalesce(sum(input_tokens), 0), 9223372036854775807)::BIGINT AS input_tokens,
    least(coalesce(sum(output_tokens), 0), 9223372036854775807)::BIGINT AS output_tokens,
    least(coalesce(sum(cost_nusd), 0), 9223372036854775807)::BIGINT AS cost_nusd,
    least(coalesce(
        sum(coalesce(input_tokens, 0) + coalesce(output_tokens, 0))
            FILTER (cost_nusd IS NOT NULL), 0
    ), 9223372036854775807)::BIGINT AS priced_tokens,
    min(start_time) AS first_start
FROM call
WHERE start_time >= $start AND start_time < $end AND tenant = ANY($tenants)
GROUP BY ALL
ORDER BY ALL
