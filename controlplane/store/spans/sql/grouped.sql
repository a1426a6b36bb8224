WITH crowded AS (
    SELECT kind, key_hash, CASE kind WHEN 0 THEN 0 ELSE hour_of(start_time) END AS hour
    FROM found
    GROUP BY ALL
    HAVING CASE WHEN kind IN (1, 2) THEN count(DISTINCT (side, start_time)) ELSE count(*) END
        > most_sharers(kind)
),
grouped AS (
    SELECT *,
        hour_of(start_time) AS hour,
        CASE WHEN layer = 'engine' THEN choices_of(attributes) END AS choices,
        join_id(response_id, layer) AS whole_id,
        (domain, service_name, scope_name) IN (
            SELECT (domain, service_name, scope_name) FROM weak_emitter
            WHERE report.start_time >= weak_emitter.since
        ) AS has_weak_ids
    FROM span AS report
    SEMI JOIN member USING (trace_lo, span_id, start_time)
    WHERE start_time >= $start AND start_time < $end
        AND batch_seq <= $through AND report_kind = 'call'
)
SELECT
    {columns},
    is_join_key(whole_id) AND NOT has_weak_ids AND NOT EXISTS (
        FROM crowded
        WHERE kind = 1 AND crowded.hour = grouped.hour
            AND key_hash = hash('response', domain, whole_id)
    ) AS response_id_joins,
    is_join_key(gateway_call_id) AND NOT has_weak_ids AND NOT EXISTS (
        FROM crowded
        WHERE kind = 2 AND crowded.hour = grouped.hour
            AND key_hash = hash('gateway', domain, gateway_call_id)
    ) AS gateway_id_joins,
    NOT EXISTS (
        FROM crowded WHERE kind = 0 AND key_hash = hash(domain, trace_hi, trace_lo)
    ) AS trace_joins,
    {is_of_request} AND NOT EXISTS (
        FROM crowded
        WHERE kind = 3 AND crowded.hour = grouped.hour AND key_hash = {request_key}
    ) AS sequence_joins,
    {is_half_of_pair} AND NOT EXISTS (
        FROM crowded
        WHERE kind = 4 AND crowded.hour = grouped.hour AND key_hash = {pair_key}
    ) AS pair_joins,
    {is_of_gateway} AND NOT EXISTS (
        FROM crowded
        WHERE kind = 5 AND crowded.hour = grouped.hour AND key_hash = {cell_key}
    ) AS cell_joins,
    (trace_lo, span_id, start_time) IN (FROM context) AS is_context
FROM grouped
