SELECT
    {period}pool, slice, tenant, team, model, is_idle,
    sum(calls)::BIGINT AS calls,
    sum(cost_nusd)::BIGINT AS cost_nusd
FROM gpu_share
WHERE bucket >= $start AND bucket < $end
    AND (tenant = ANY($tenants) OR ($idle AND tenant = ''))
GROUP BY ALL
ORDER BY ALL
