-- What calls of a bucket cost over every bucket that they ran in.
CREATE OR REPLACE TEMP TABLE gpu_cost AS
SELECT call_id, sum(cost_nusd + idle_nusd)::BIGINT AS cost_nusd, min(pool) AS pool
FROM gpu_call
WHERE call_id IN (SELECT call_id FROM gpu_call WHERE bucket = $bucket)
GROUP BY call_id
