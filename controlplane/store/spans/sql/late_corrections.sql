-- Closed calls as all reports make them, against what was booked of each last: the call as it is
-- stored, or the correction after it. Who a call is of stays as it was booked.
WITH settled AS (
    SELECT {columns}, cost_nusd, cost_state, cost_reason, price_id,
        input_tokens, cached_input_tokens, output_tokens
    FROM late_call
    UNION ALL BY NAME
    SELECT {columns}, cost_nusd, cost_state, cost_reason, price_id,
        input_tokens, cached_input_tokens, output_tokens
    FROM late_report
    ANTI JOIN late_examined USING (domain, trace_hi, trace_lo, span_id, start_time)
),

stored AS (
    SELECT {columns}, cost_nusd, cost_state, cost_reason, price_id,
        input_tokens, cached_input_tokens, output_tokens
    FROM call
    SEMI JOIN late_examined USING (domain, trace_hi, trace_lo, span_id, start_time)
    WHERE start_time >= $start AND start_time < $closed
),

corrected AS (
    SELECT {columns},
        new_cost_nusd AS cost_nusd, new_cost_state AS cost_state,
        new_cost_reason AS cost_reason, new_price_id AS price_id,
        -- A re-rate says nothing of usage: that is as the last late report left it.
        arg_max(new_input_tokens, posting) OVER (PARTITION BY call_id) AS input_tokens,
        arg_max(new_cached_input_tokens, posting) OVER (PARTITION BY call_id)
            AS cached_input_tokens,
        arg_max(new_output_tokens, posting) OVER (PARTITION BY call_id) AS output_tokens
    FROM adjustment
    WHERE is_correction AND start_time >= $start AND start_time < $closed
        AND call_id IN (SELECT call_id FROM late_examined UNION SELECT call_id FROM late_report)
    QUALIFY row_number() OVER (PARTITION BY call_id ORDER BY posting DESC) = 1
),

booked AS (
    SELECT
        stored.* REPLACE (
            if(corrected.call_id IS NULL, stored.cost_nusd, corrected.cost_nusd) AS cost_nusd,
            if(corrected.call_id IS NULL, stored.cost_state, corrected.cost_state) AS cost_state,
            if(corrected.call_id IS NULL, stored.cost_reason, corrected.cost_reason)
                AS cost_reason,
            if(corrected.call_id IS NULL, stored.price_id, corrected.price_id) AS price_id,
            coalesce(corrected.input_tokens, stored.input_tokens) AS input_tokens,
            coalesce(corrected.cached_input_tokens, stored.cached_input_tokens)
                AS cached_input_tokens,
            coalesce(corrected.output_tokens, stored.output_tokens) AS output_tokens
        )
    FROM stored
    LEFT JOIN corrected USING (call_id)
    UNION ALL BY NAME
    SELECT * FROM corrected ANTI JOIN stored USING (call_id)
),

differing AS (
    SELECT
        {named},
        booked.cost_nusd AS old_cost_nusd, booked.cost_state AS old_cost_state,
        booked.cost_reason AS old_cost_reason, booked.price_id AS old_price_id,
        settled.cost_nusd AS new_cost_nusd, settled.cost_state AS new_cost_state,
        settled.cost_reason AS new_cost_reason, settled.price_id AS new_price_id,
        coalesce(booked.input_tokens, 0) AS old_input_tokens,
        coalesce(booked.cached_input_tokens, 0) AS old_cached_input_tokens,
        coalesce(booked.output_tokens, 0) AS old_output_tokens,
        coalesce(settled.input_tokens, 0) AS new_input_tokens,
        coalesce(settled.cached_input_tokens, 0) AS new_cached_input_tokens,
        coalesce(settled.output_tokens, 0) AS new_output_tokens,
        true AS is_correction, 'late' AS reason
    FROM settled
    FULL JOIN booked USING (call_id)
)

SELECT *
FROM differing
WHERE (old_cost_nusd, old_input_tokens, old_cached_input_tokens, old_output_tokens)
    IS DISTINCT FROM
    (new_cost_nusd, new_input_tokens, new_cached_input_tokens, new_output_tokens)
ORDER BY call_id
