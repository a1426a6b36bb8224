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
    min(start_time) AS first_start,
    count(reported_cost_nusd) FILTER (cost_nusd IS NOT NULL) AS compared_calls,
    count(*) FILTER (is_off) AS off_calls,
    least(coalesce(sum(reported_cost_nusd) FILTER (is_off), 0), 9223372036854775807)::BIGINT
        AS off_reported_nusd,
    least(coalesce(sum(cost_nusd) FILTER (is_off), 0), 9223372036854775807)::BIGINT AS off_cost_nusd,
    least(coalesce(sum(difference) FILTER (is_off), 0), 9223372036854775807)::BIGINT AS off_nusd
FROM (
    SELECT *,
        abs(reported_cost_nusd::HUGEINT - cost_nusd) AS difference,
        coalesce(difference * $plausible > abs(cost_nusd::HUGEINT), false) AS is_off
    FROM call
)
WHERE start_time >= $start AND start_time < $end AND tenant = ANY($tenants)
GROUP BY ALL
ORDER BY ALL
