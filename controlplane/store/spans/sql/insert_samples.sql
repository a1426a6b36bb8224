-- Rows whose series and time are not stored, and each only once.
CREATE OR REPLACE TEMP TABLE kept_sample AS
SELECT *
FROM new_sample
ANTI JOIN (
    SELECT domain, series_hash, time FROM sample WHERE time >= $start AND time <= $end
) AS stored USING (domain, series_hash, time)
QUALIFY row_number() OVER (PARTITION BY domain, series_hash, time) = 1
