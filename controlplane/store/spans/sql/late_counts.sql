INSERT INTO emitter_count
SELECT tenant, service_name, dialect, 0, 0, count(*), NULL
FROM late_report
GROUP BY tenant, service_name, dialect
