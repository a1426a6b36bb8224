CREATE OR REPLACE TEMP TABLE progress AS
SELECT tenant, max(seen) AS data_through
FROM (
    SELECT tenant, newest AS seen FROM new_lone
    UNION ALL SELECT tenant, start_time FROM new_call
    UNION ALL SELECT tenant, data_through FROM tenant_progress
)
GROUP BY tenant
