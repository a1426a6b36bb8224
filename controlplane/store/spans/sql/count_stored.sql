INSERT INTO emitter_count
SELECT tenant, service_name, dialect, count(*), 0, 0, max(start_time)
FROM batch
GROUP BY ALL
