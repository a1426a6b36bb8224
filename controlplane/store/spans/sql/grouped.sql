WITH crowded AS (
    SELECT kind, key_hash, CASE kind WHEN 0 THEN 0 ELSE hour_of(start_time) END AS hour
    FROM found
    GROUP BY ALL
    HAVING count(*) > CASE kind WHEN 0 THEN $max_in_trace ELSE $max_sharers END
),
grouped AS (
    SELECT *, hour_of(start_time) AS hour
    FROM span
    SEMI JOIN member USING (trace_lo, span_id, start_time)
    WHERE start_time >= $start AND start_time < $end
        AND batch_seq <= $through AND report_kind = 'call'
)
SELECT
    {columns},
    is_join_key(response_id) AND NOT EXISTS (
        FROM crowded
        WHERE kind = 1 AND crowded.hour = grouped.hour
            AND key_hash = hash('response', domain, response_id)
    ) AS response_id_joins,
    is_join_key(gateway_call_id) AND NOT EXISTS (
        FROM crowded
        WHERE kind = 2 AND crowded.hour = grouped.hour
            AND key_hash = hash('gateway', domain, gateway_call_id)
    ) AS gateway_id_joins,
    NOT EXISTS (
        FROM crowded WHERE kind = 0 AND key_hash = hash(domain, trace_hi, trace_lo)
    ) AS trace_joins
FROM grouped
