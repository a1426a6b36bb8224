-- A correction of a closed period is charged when it is booked and names the day that it is about,
-- in the zone that closed the period; NULL for rows from before this file: their UTC day.
ALTER TABLE adjustment ADD COLUMN corrects VARCHAR;
ALTER TABLE cube_15m ADD COLUMN corrects VARCHAR;

-- What was booked before was in no bucket yet.
INSERT INTO dirty (tenant, bucket, marked_at)
SELECT DISTINCT tenant, bucket_of(applied_at), applied_at FROM adjustment WHERE is_correction;
