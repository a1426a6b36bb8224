-- What the reports of the batches taken can be joined by. An id whose own part is shorter than
-- eight characters is a counter or a small random number, and no key (ingest.join_keys).
CREATE OR REPLACE TEMP TABLE new_key AS
WITH report AS (
    SELECT
        md5_number_lower(concat_ws('/', layer, key_role, scope_name)) AS side,
        domain, trace_hi, trace_lo, span_id, start_time, response_id, gateway_call_id
    FROM span
    WHERE batch_seq > $after AND batch_seq <= $through AND report_kind = 'call'
)
SELECT 0::TINYINT AS kind, xor(trace_hi, trace_lo) AS key_hash, side,
    domain, trace_hi, trace_lo, span_id, start_time
FROM report
UNION ALL
SELECT 1::TINYINT, md5_number_lower(concat_ws('/', 'response', domain, response_id)), side,
    domain, trace_hi, trace_lo, span_id, start_time
FROM report
WHERE length(regexp_replace(response_id, '^[A-Za-z]+[-_]', '')) >= 8
UNION ALL
SELECT 2::TINYINT, md5_number_lower(concat_ws('/', 'gateway', domain, gateway_call_id)), side,
    domain, trace_hi, trace_lo, span_id, start_time
FROM report
WHERE length(regexp_replace(gateway_call_id, '^[A-Za-z]+[-_]', '')) >= 8
