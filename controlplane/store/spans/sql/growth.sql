-- Growth between neighbouring samples of a series. A smaller value or a later start is a restart,
-- which counts from zero; the first sample counts whole only where its series began in the window.
WITH neighbours AS (
    SELECT
        *,
        lag(value) OVER series AS value_before,
        lag(start_time) OVER series AS start_before
    FROM sample
    WHERE tenant = ANY($tenants) AND meaning <> '' AND kind <> 'gauge'
        AND time >= $from AND time < $end
    WINDOW series AS (PARTITION BY domain, series_hash ORDER BY time)
)
SELECT
    tenant, emitter, instance, metric, meaning, model, provider, host, gpu, pool,
    sum(CASE
        WHEN temporality = 'delta' THEN value
        WHEN value_before IS NULL THEN CASE WHEN start_time >= $start THEN value ELSE 0 END
        WHEN value < value_before OR start_time > start_before THEN value
        ELSE value - value_before
    END) AS increase,
    min(time) AS first_time,
    max(time) AS last_time
FROM neighbours
WHERE time >= $start
GROUP BY ALL
ORDER BY ALL
