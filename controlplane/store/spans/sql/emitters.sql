WITH refused AS (
    SELECT tenant, key_id, service_name, signal, sum(rejected)::BIGINT AS rejected
    FROM emitter_rejection
    WHERE tenant = ANY($tenants) AND hour >= $start AND hour < $end
    GROUP BY ALL
),
-- A gateway sends for many tenants: it is not silent because one of them is.
heard AS (
    SELECT key_id, service_name, signal, max(last_received) AS last_heard
    FROM emitter_hour
    WHERE hour >= $start AND hour < $end
    GROUP BY ALL
)
SELECT
    tenant, key_id, service_name, signal,
    sum(received)::BIGINT AS received,
    sum(stored)::BIGINT AS stored,
    sum(duplicates)::BIGINT AS duplicates,
    coalesce(any_value(rejected), 0)::BIGINT AS rejected,
    sum(late)::BIGINT AS late,
    sum(ahead)::BIGINT AS ahead,
    min(hour) AS first_hour,
    max(last_received) AS last_received,
    any_value(last_heard) AS last_heard
FROM emitter_hour
JOIN heard USING (key_id, service_name, signal)
LEFT JOIN refused USING (tenant, key_id, service_name, signal)
WHERE tenant = ANY($tenants) AND hour >= $start AND hour < $end
GROUP BY ALL
ORDER BY ALL
