-- What was stored of a batch, by emitter. A span's tenant is not always its key's, so spans have
-- none here; their keys have one tenant each.
CREATE OR REPLACE TEMP TABLE stored_of_batch AS
SELECT NULL::VARCHAR AS of_tenant, key_id, service_name, 'traces' AS signal, count(*) AS stored
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
