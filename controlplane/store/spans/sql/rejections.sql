SELECT tenant, key_id, service_name, signal, reason, sum(rejected)::BIGINT AS rejected
FROM emitter_rejection
WHERE tenant = ANY($tenants) AND hour >= $start AND hour < $end
GROUP BY ALL
ORDER BY ALL
