CREATE OR REPLACE TEMP TABLE progress AS
SELECT tenant, max(seen) AS data_through
FROM (
    SELECT tenant, start_time AS seen FROM fresh
    UNION ALL SELECT tenant, start_time FROM new_call
    UNION ALL SELECT tenant, data_through FROM tenant_progress
)
GROUP BY tenant
