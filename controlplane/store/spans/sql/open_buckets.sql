CREATE OR REPLACE TEMP TABLE open_bucket AS
SELECT DISTINCT tenant, bucket
FROM dirty
WHERE bucket >= $cube_start AND bucket < $cube_end AND tenant = ANY($tenants)
