INSERT INTO emitter_count
SELECT tenant, service_name, dialect, sum(spans), 0, 0, max(newest)
FROM counted
GROUP BY ALL
