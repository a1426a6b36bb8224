SELECT
    {columns},
    new_cost_nusd AS cost_nusd, new_cost_state AS cost_state,
    new_cost_reason AS cost_reason, new_price_id AS price_id,
    {usage}
FROM adjustment
WHERE is_correction AND start_time >= $start AND start_time < $end
QUALIFY row_number() OVER (
    PARTITION BY call_id ORDER BY posting DESC, new_cost_state IS NULL
) = 1
