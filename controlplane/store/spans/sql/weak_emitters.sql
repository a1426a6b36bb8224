-- Emitters whose spans of different starts share ids, on average more than a few; those that are
-- known are left out. A cache's replies repeat an id and say so.
SELECT domain, service_name, scope_name
FROM (
    SELECT domain, service_name, scope_name, count(DISTINCT start_time) AS spans
    FROM span
    WHERE start_time >= $start AND start_time < $end AND report_kind = 'call'
        AND cost_reason IS DISTINCT FROM 'cache_hit'
        AND is_join_key(join_id(response_id, layer))
    GROUP BY domain, service_name, scope_name, join_id(response_id, layer)
) AS by_id
ANTI JOIN weak_emitter USING (domain, service_name, scope_name)
GROUP BY ALL
HAVING sum(spans) >= $fewest AND sum(spans) >= $most * count(*)
