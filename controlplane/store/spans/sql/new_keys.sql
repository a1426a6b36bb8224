-- What the reports of the batches taken can be joined by.
CREATE OR REPLACE TEMP TABLE new_key AS
WITH report AS (
    SELECT
        hash(layer, key_role, scope_name) AS side,
        domain, trace_hi, trace_lo, span_id, start_time, response_id, gateway_call_id
    FROM span
    WHERE batch_seq > $after AND batch_seq <= $through AND report_kind = 'call'
)
SELECT 0::TINYINT AS kind, hash(domain, trace_hi, trace_lo) AS key_hash, side,
    trace_lo, span_id, start_time
FROM report
UNION ALL
SELECT 1::TINYINT, hash('response', domain, response_id), side, trace_lo, span_id, start_time
FROM report
WHERE is_join_key(response_id)
UNION ALL
SELECT 2::TINYINT, hash('gateway', domain, gateway_call_id), side, trace_lo, span_id, start_time
FROM report
WHERE is_join_key(gateway_call_id)
