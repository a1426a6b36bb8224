-- Closed calls as all reports make them, against what was booked of each last: the call as it is
-- stored, or the correction after it. Where it became somebody else's, all of it is taken from the
-- old owner and given to the new one, in one posting.
WITH settled AS (
    SELECT {whole}
    FROM late_call
    UNION ALL BY NAME
    SELECT {whole}
    FROM late_report
    ANTI JOIN late_examined USING (domain, trace_hi, trace_lo, span_id, start_time)
),

stored AS (
    SELECT {whole}
    FROM call
    SEMI JOIN late_examined USING (domain, trace_hi, trace_lo, span_id, start_time)
    WHERE start_time >= $start AND start_time < $end
),

corrected AS (
    FROM ({last_booked})
    WHERE call_id IN (SELECT call_id FROM late_examined UNION SELECT call_id FROM late_report)
),

booked AS (
    -- What an old correction does not say of usage is as it was stored.
    SELECT {columns}, {price}, {usage}
    FROM corrected
    LEFT JOIN stored USING (call_id)
    UNION ALL BY NAME
    FROM stored ANTI JOIN corrected USING (call_id)
),

compared AS MATERIALIZED (
    SELECT
        was, now,
        coalesce(was.cost_state IS NOT NULL, false) AS was_there,
        now.start_time IS NOT NULL AS is_there,
        was_there AND is_there AND ({owner_was}) IS DISTINCT FROM ({owner_now}) AS is_moved
    FROM booked AS was
    FULL JOIN settled AS now ON was.call_id = now.call_id
)

SELECT * FROM (
    SELECT {of_was}, {old_was}, true AS is_correction, 'late' AS reason
    FROM compared
    WHERE is_moved
    UNION ALL BY NAME
    SELECT {of_now}, {new_now}, true AS is_correction, 'late' AS reason
    FROM compared
    WHERE is_moved
    UNION ALL BY NAME
    SELECT {of_either}, {old_said}, {new_said}, true AS is_correction, 'late' AS reason
    FROM compared
    WHERE NOT is_moved AND (was_there OR is_there)
        AND (was_there, {amounts_was}) IS DISTINCT FROM (is_there, {amounts_now})
)
ORDER BY call_id, new_cost_state IS NULL DESC
