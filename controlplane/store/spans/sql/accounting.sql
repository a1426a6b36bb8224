SELECT
    service_name, dialect,
    sum(stored)::BIGINT AS stored,
    sum(calls)::BIGINT AS calls,
    sum(suppressed)::BIGINT AS suppressed,
    max(last_event_time) AS last_event_time
FROM emitter_count
WHERE tenant = ANY($tenants)
GROUP BY service_name, dialect
ORDER BY service_name, dialect
