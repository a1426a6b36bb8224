-- What the reports of the batches taken can be joined by; kinds are those of report_key:
-- 0 trace, 1 response id, 2 gateway call id, 3 spans of one engine's request, 4 halves of one call,
-- 5 what a registered gateway or a client of it says alike with others of that minute.
CREATE OR REPLACE TEMP TABLE new_key AS
WITH report AS (
    SELECT
        -- The two halves of a stream are of one scope, and yet two sides of one call.
        CASE WHEN {is_answer_of_stream} THEN hash('answer', scope_name)
            ELSE hash(layer, key_role, scope_name) END AS side,
        domain, trace_hi, trace_lo, span_id, start_time, tenant, key_id, key_role, service_name,
        scope_name,
        layer, status, input_tokens, response_id, gateway_call_id, duration_us, usage_state,
        gateway, billing_model, output_tokens,
        join_id(response_id, layer) AS whole_id,
        {has_weak_ids} AS has_weak_ids
    FROM span AS report
    WHERE batch_seq > $after AND batch_seq <= $through AND report_kind = 'call'
)
SELECT 0::TINYINT AS kind, hash(domain, trace_hi, trace_lo) AS key_hash, side,
    trace_lo, span_id, start_time
FROM report
UNION ALL
SELECT 1::TINYINT, hash('response', domain, whole_id), side, trace_lo, span_id, start_time
FROM report
WHERE is_join_key(whole_id) AND NOT has_weak_ids
UNION ALL
SELECT 2::TINYINT, hash('gateway', domain, gateway_call_id), side, trace_lo, span_id, start_time
FROM report
WHERE is_join_key(gateway_call_id) AND NOT has_weak_ids
UNION ALL
SELECT 3::TINYINT, {request_key}, side, trace_lo, span_id, start_time
FROM report
WHERE {is_of_request}
UNION ALL
SELECT 4::TINYINT, {pair_key}, side, trace_lo, span_id, start_time
FROM report
WHERE {is_half_of_pair}
UNION ALL
-- The answer of a stream may begin in the minute after its request.
SELECT 4::TINYINT, {next_pair_key}, side, trace_lo, span_id, start_time
FROM report
WHERE {is_request_of_stream}
UNION ALL
SELECT 5::TINYINT, {cell_key}, side, trace_lo, span_id, start_time
FROM report
WHERE {is_of_gateway}
UNION ALL
-- Its client may have called a gateway in the minute before.
SELECT 5::TINYINT, {cell_key_before}, side, trace_lo, span_id, start_time
FROM report
WHERE {is_of_gateway} AND {is_gateway}
