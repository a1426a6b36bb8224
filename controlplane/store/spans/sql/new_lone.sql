-- The new reports that are calls by themselves, summed as far as accounts and marks need.
CREATE OR REPLACE TEMP TABLE new_lone AS
SELECT
    tenant, service_name, dialect, bucket_of(start_time) AS bucket,
    count(*) AS calls, max(start_time) AS newest
FROM span
WHERE batch_seq > $after AND batch_seq <= $through AND report_kind = 'call' AND NOT is_grouped
GROUP BY ALL
