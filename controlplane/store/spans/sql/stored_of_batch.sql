-- What was stored of a batch, by emitter. A key may send for several tenants.
CREATE OR REPLACE TEMP TABLE stored_of_batch AS
SELECT tenant, key_id, service_name, 'traces' AS signal, count(*) AS stored
FROM span
WHERE batch_seq = (SELECT batch_seq FROM ingest_batch WHERE batch_id = $batch_id)
GROUP BY ALL
UNION ALL
SELECT tenant, key_id, emitter, 'metrics', count(*) FROM kept_sample GROUP BY ALL
UNION ALL
SELECT tenant, key_id, service_name, 'logs', count(*)
FROM kept_event
WHERE source = 'log'
GROUP BY ALL
