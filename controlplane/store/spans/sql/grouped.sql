WITH crowded AS (
    SELECT kind, key_hash, CASE kind WHEN 0 THEN 0 ELSE epoch_us(start_time) // 3600000000 END AS hour
    FROM found
    GROUP BY ALL
    HAVING count(*) > CASE kind WHEN 0 THEN $max_in_trace ELSE $max_sharers END
),
grouped AS (
    SELECT *, epoch_us(start_time) // 3600000000 AS hour
    FROM span
    SEMI JOIN member USING (domain, trace_hi, trace_lo, span_id, start_time)
    WHERE start_time >= $start AND start_time < $end
        AND batch_seq <= $through AND report_kind = 'call'
)
SELECT
    {columns},
    coalesce(length(regexp_replace(response_id, '^[A-Za-z]+[-_]', '')) >= 8, false)
    AND NOT EXISTS (
        FROM crowded
        WHERE kind = 1 AND crowded.hour = grouped.hour
            AND key_hash = md5_number_lower(concat_ws('/', 'response', domain, response_id))
    ) AS response_id_joins,
    coalesce(length(regexp_replace(gateway_call_id, '^[A-Za-z]+[-_]', '')) >= 8, false)
    AND NOT EXISTS (
        FROM crowded
        WHERE kind = 2 AND crowded.hour = grouped.hour
            AND key_hash = md5_number_lower(concat_ws('/', 'gateway', domain, gateway_call_id))
    ) AS gateway_id_joins,
    NOT EXISTS (
        FROM crowded WHERE kind = 0 AND key_hash = xor(trace_hi, trace_lo)
    ) AS trace_joins
FROM grouped
