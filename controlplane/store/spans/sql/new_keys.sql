-- What the reports of the batches taken can be joined by; kinds are those of report_key:
-- 0 trace, 1 response id, 2 gateway call id, 3 spans of one engine's request, 4 halves of one call,
-- 5 what a registered gateway or a client of it says alike with others of that minute.
-- All keys of a report are made in one pass, so that only numbers are carried from there.
CREATE OR REPLACE TEMP TABLE new_key AS
WITH report AS (
    SELECT
        -- The two halves of a stream are of one scope, and yet two sides of one call.
        CASE WHEN {is_answer_of_stream} THEN hash('answer', scope_name)
            ELSE hash(layer, key_role, scope_name) END AS side,
        trace_lo, span_id, start_time,
        hash(domain, trace_hi, trace_lo) AS trace_key,
        CASE WHEN is_join_key(whole_id) AND NOT has_weak_ids
            THEN hash('response', domain, whole_id) END AS response_key,
        CASE WHEN is_join_key(gateway_call_id) AND NOT has_weak_ids
            THEN hash('gateway', domain, gateway_call_id) END AS gateway_key,
        CASE WHEN {is_of_request} THEN {request_key} END AS request_key,
        CASE WHEN {is_half_of_pair} THEN {pair_key} END AS pair_key,
        -- The answer of a stream may begin in the minute after its request.
        CASE WHEN {is_request_of_stream} THEN {next_pair_key} END AS next_pair_key,
        CASE WHEN {is_of_gateway} THEN {cell_key} END AS cell_key,
        -- Its client may have called a gateway in the minute before.
        CASE WHEN {is_of_gateway} AND {is_gateway} THEN {cell_key_before} END AS cell_key_before
    FROM (
        SELECT *, join_id(response_id, layer) AS whole_id, {has_weak_ids} AS has_weak_ids
        FROM span AS report
        WHERE batch_seq > $after AND batch_seq <= $through AND report_kind = 'call'
    )
)
SELECT 0::TINYINT AS kind, trace_key AS key_hash, side, trace_lo, span_id, start_time FROM report
UNION ALL
SELECT 1::TINYINT, response_key, side, trace_lo, span_id, start_time
FROM report WHERE response_key IS NOT NULL
UNION ALL
SELECT 2::TINYINT, gateway_key, side, trace_lo, span_id, start_time
FROM report WHERE gateway_key IS NOT NULL
UNION ALL
SELECT 3::TINYINT, request_key, side, trace_lo, span_id, start_time
FROM report WHERE request_key IS NOT NULL
UNION ALL
SELECT 4::TINYINT, pair_key, side, trace_lo, span_id, start_time
FROM report WHERE pair_key IS NOT NULL
UNION ALL
SELECT 4::TINYINT, next_pair_key, side, trace_lo, span_id, start_time
FROM report WHERE next_pair_key IS NOT NULL
UNION ALL
SELECT 5::TINYINT, cell_key, side, trace_lo, span_id, start_time
FROM report WHERE cell_key IS NOT NULL
UNION ALL
SELECT 5::TINYINT, cell_key_before, side, trace_lo, span_id, start_time
FROM report WHERE cell_key_before IS NOT NULL
