-- What metrics of these names came to: how much counters and histograms grew, and the last value
-- of gauges, summed over their series. Restarts and first samples count as in growth.sql.
WITH neighbours AS (
    SELECT
        *,
        lag(value) OVER series AS value_before,
        lag(start_time) OVER series AS start_before
    FROM sample
    WHERE tenant = ANY($tenants) AND regexp_full_match(metric, $names)
        AND time >= $from AND time < $end
    WINDOW series AS (PARTITION BY domain, series_hash ORDER BY time)
), of_series AS (
    SELECT
        tenant, metric, domain, series_hash,
        sum(CASE
            WHEN kind = 'gauge' THEN NULL
            WHEN temporality = 'delta' THEN value
            WHEN value_before IS NULL THEN CASE WHEN start_time >= $start THEN value ELSE 0 END
            WHEN value < value_before OR start_time > start_before THEN value
            ELSE value - value_before
        END) AS grown,
        arg_max(value, time) FILTER (kind = 'gauge') AS last_value
    FROM neighbours
    WHERE time >= $start
    GROUP BY ALL
)
SELECT tenant, metric, sum(coalesce(grown, last_value)) AS value, count(*) AS series
FROM of_series
GROUP BY ALL
ORDER BY ALL
