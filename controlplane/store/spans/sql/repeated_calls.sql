-- Billed calls whose response id another call of the tenant and provider had before them.
SELECT {groups}{sums}
FROM (
    FROM ({booked})
    WHERE start_time >= $start AND start_time < $end
        AND tenant = ANY($tenants)
        AND counted = 1
        AND cost_nusd > 0
        AND is_join_key(response_id){filters}
    QUALIFY row_number() OVER (
        PARTITION BY tenant, provider, response_id ORDER BY start_time, call_id
    ) > 1
) AS repeated
GROUP BY ALL
