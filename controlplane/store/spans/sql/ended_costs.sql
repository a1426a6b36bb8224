SELECT {groups}{cost} AS cost_nusd
FROM call
WHERE start_time >= $earliest AND start_time < $end
    AND tenant = ANY($tenants)
    AND cost_nusd > 0
    AND duration_us <= $longest_us
    AND start_time + to_microseconds(duration_us) >= $start
    AND start_time + to_microseconds(duration_us) < $end
GROUP BY ALL
HAVING cost_nusd > 0
ORDER BY {order}
