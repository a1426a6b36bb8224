-- Calls before and after they were settled again, where the price differs.
SELECT
    {columns},
    old_call.cost_nusd AS old_cost_nusd, old_call.cost_state AS old_cost_state,
    old_call.cost_reason AS old_cost_reason, old_call.price_id AS old_price_id,
    new_call.cost_nusd AS new_cost_nusd, new_call.cost_state AS new_cost_state,
    new_call.cost_reason AS new_cost_reason, new_call.price_id AS new_price_id
FROM old_call
FULL JOIN new_call USING (call_id)
WHERE (old_call.cost_nusd, old_call.cost_state, old_call.cost_reason, old_call.price_id)
    IS DISTINCT FROM
    (new_call.cost_nusd, new_call.cost_state, new_call.cost_reason, new_call.price_id)
ORDER BY call_id
