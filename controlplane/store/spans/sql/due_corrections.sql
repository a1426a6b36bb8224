-- A closed day's calls as they should have cost, against what was booked of each last: its price, or
-- the correction after it. A call that costs again what it did first takes its correction back.
WITH corrected AS (
    SELECT
        call_id,
        arg_max_null(new_cost_nusd, posting) AS cost_nusd,
        arg_max_null(new_cost_state, posting) AS cost_state,
        arg_max_null(new_cost_reason, posting) AS cost_reason,
        arg_max_null(new_price_id, posting) AS price_id
    FROM adjustment
    WHERE is_correction AND start_time >= $start AND start_time < $end
        AND (len($tenants) = 0 OR tenant = ANY($tenants))
    GROUP BY call_id
),

rated AS (
    SELECT * EXCLUDE (is_correction) FROM adjusted
    UNION ALL BY NAME
    SELECT
        {columns},
        cost_nusd AS old_cost_nusd, cost_state AS old_cost_state,
        cost_reason AS old_cost_reason, price_id AS old_price_id,
        cost_nusd AS new_cost_nusd, cost_state AS new_cost_state,
        cost_reason AS new_cost_reason, price_id AS new_price_id
    FROM call
    WHERE start_time >= $start AND start_time < $end
        AND call_id IN (SELECT call_id FROM corrected)
        AND call_id NOT IN (SELECT call_id FROM adjusted)
),

booked AS (
    SELECT
        rated.* REPLACE (
            if(corrected.call_id IS NULL, old_cost_nusd, corrected.cost_nusd) AS old_cost_nusd,
            if(corrected.call_id IS NULL, old_cost_state, corrected.cost_state) AS old_cost_state,
            if(corrected.call_id IS NULL, old_cost_reason, corrected.cost_reason)
                AS old_cost_reason,
            if(corrected.call_id IS NULL, old_price_id, corrected.price_id) AS old_price_id
        ),
        true AS is_correction
    FROM rated
    LEFT JOIN corrected ON rated.call_id = corrected.call_id
)

SELECT *
FROM booked
WHERE old_cost_nusd IS DISTINCT FROM new_cost_nusd
ORDER BY call_id
