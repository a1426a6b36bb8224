-- A closed day's calls as they should have cost, against what was booked of each last: its price, or
-- the correction after it. A call that costs again what it did first takes its correction back.
-- Whose it is and what it used is as it was booked: a price moves neither. Calls of others than the
-- tenants asked for are settled again with these, and are left as they are.
WITH corrected AS (
    FROM ({last_booked})
),

stored AS (
    SELECT {whole}
    FROM call
    WHERE start_time >= $start AND start_time < $end
        AND (
            call_id IN (SELECT call_id FROM corrected) OR call_id IN (SELECT call_id FROM adjusted)
        )
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
    FROM stored
    WHERE call_id IN (SELECT call_id FROM corrected)
        AND call_id NOT IN (SELECT call_id FROM adjusted)
),

booked AS (
    SELECT {owned}, {old_price}, {new_price}, {old_usage}, {new_usage}, true AS is_correction
    FROM rated
    LEFT JOIN corrected ON rated.call_id = corrected.call_id
    LEFT JOIN stored ON rated.call_id = stored.call_id
)

SELECT *
FROM booked
WHERE old_cost_nusd IS DISTINCT FROM new_cost_nusd
    AND (len($tenants) = 0 OR tenant = ANY($tenants))
ORDER BY call_id
