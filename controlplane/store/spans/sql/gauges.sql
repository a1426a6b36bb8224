SELECT
    tenant, emitter, instance, metric, meaning, model, host, gpu, pool,
    avg(value) AS mean,
    max(value) AS largest,
    arg_max(value, time) AS last,
    count(*) AS samples,
    max(time) AS last_time
FROM sample
WHERE tenant = ANY($tenants) AND meaning <> '' AND kind = 'gauge'
    AND time >= $start AND time < $end
GROUP BY ALL
ORDER BY ALL
