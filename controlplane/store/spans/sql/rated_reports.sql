-- Reports of a window with where they stand, for new prices; `is_call` are calls by themselves.
SELECT
    span_fact.rowid AS row_number,
    NOT span_fact.is_grouped AS is_call,
    concat('call_', printf('%016x%016x', call_hi, call_lo)) AS call_id,
    layer = 'agent' AND key_role = 'agent' AS enforced,
    {columns}
FROM span_fact
JOIN span_context USING (context_id)
WHERE start_time >= $start AND start_time < $end
    AND report_kind = 'call' AND batch_seq <= (SELECT through FROM settle_state)
    AND (len($tenants) = 0 OR tenant = ANY($tenants))
