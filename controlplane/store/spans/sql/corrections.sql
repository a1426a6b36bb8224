-- What was booked about closed periods, by day of the calls (in the zone that closed them) and by
-- whose they are.
SELECT
    applied_at, run_id, price_version, coalesce(
        make_timestamptz(epoch_us(strptime(corrects, '%Y-%m-%d'))),
        make_timestamptz(day_of(start_time) * 86400000000)
    ) AS day,
    tenant, team, project, feature, customer, api_key, environment, region, provider,
    coalesce(billing_model, response_model, request_model) AS billing_model, operation,
    new_price_id AS price_id, new_cost_state AS cost_state,
    count(*) AS calls,
    sum(coalesce(new_cost_nusd, 0)::HUGEINT - coalesce(old_cost_nusd, 0))::BIGINT AS delta_nusd,
    {moved}
FROM adjustment
WHERE is_correction AND tenant = ANY($tenants) AND applied_at >= $start AND applied_at < $end
GROUP BY ALL
ORDER BY ALL
