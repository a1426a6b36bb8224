-- Nearest rank: the shortest duration that so many of the calls do not exceed.
SELECT
    {groups}count(*) AS calls,
    quantile_disc(duration_us, 0.5) AS p50_us,
    quantile_disc(duration_us, 0.95) AS p95_us
FROM call
WHERE start_time >= $start AND start_time < $end AND tenant = ANY($tenants)
    AND status = 'ok' AND duration_us > 0{filters}
GROUP BY ALL
HAVING count(*) > 0
ORDER BY ALL
