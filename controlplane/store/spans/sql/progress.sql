-- A start in the future says nothing about what has arrived: progress stops at the clock.
CREATE OR REPLACE TEMP TABLE progress AS
SELECT tenant, max(least(seen, $now)) AS data_through
FROM (
    SELECT tenant, newest AS seen FROM new_lone
    UNION ALL SELECT tenant, start_time FROM new_call
    UNION ALL SELECT tenant, data_through FROM tenant_progress
)
GROUP BY tenant
