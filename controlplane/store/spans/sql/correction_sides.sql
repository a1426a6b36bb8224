-- Each correction's call as it was booked before (-1) and as it is booked now (+1), with the price and
-- usage of that side; a correction is charged under the price it ends at. A side whose cost is not known
-- is of usage alone.
WITH booked AS (
    SELECT
        *, coalesce(
            make_timestamptz(epoch_us(strptime(corrects, '%Y-%m-%d'))),
            make_timestamptz(day_of(start_time) * 86400000000)
        ) AS day,
        coalesce(new_price_id, old_price_id) AS booked_price_id,
        coalesce(new_cost_state, old_cost_state) AS cost_state
    FROM adjustment
    WHERE is_correction AND tenant = ANY($tenants)
        AND {at} >= $start AND {at} < $end
)

SELECT {columns}
FROM (
    SELECT
        * REPLACE (coalesce(billing_model, response_model, request_model) AS billing_model),
        (-1)::TINYINT AS sign, {old}
    FROM booked
    WHERE old_cost_nusd IS NOT NULL OR old_cost_state = 'unpriced'
    UNION ALL BY NAME
    SELECT
        * REPLACE (coalesce(billing_model, response_model, request_model) AS billing_model),
        1::TINYINT AS sign, {new}
    FROM booked
    WHERE new_cost_nusd IS NOT NULL OR new_cost_state = 'unpriced'
)
ORDER BY applied_at, run_id, start_time, call_id, sign
