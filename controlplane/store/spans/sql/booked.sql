-- What a cost answer adds up: calls where they started, corrections of closed periods where they were
-- booked. A correction is no call. It moves cost, and usage if a late report does. Why a cost was not
-- known before is no reason any more once it is.
SELECT *, NULL::VARCHAR AS corrects, 1 AS counted
FROM call
UNION ALL BY NAME
SELECT
    applied_at AS start_time, 0 AS counted,
    coalesce(
        corrects, strftime(make_timestamp(day_of(start_time) * 86400000000), '%Y-%m-%d')
    ) AS corrects,
    tenant, team, project, feature, customer, user_id, api_key, environment, region, provider,
    operation, request_model, response_model, billing_model,
    coalesce(new_price_id, old_price_id) AS price_id,
    coalesce(new_cost_state, old_cost_state) AS cost_state,
    if(new_cost_state IS NULL, old_cost_reason, new_cost_reason) AS cost_reason,
    coalesce(new_cost_nusd, 0) - coalesce(old_cost_nusd, 0) AS cost_nusd,
    {usage}
FROM adjustment
WHERE is_correction
