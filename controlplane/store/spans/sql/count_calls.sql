INSERT INTO emitter_count
SELECT tenant, service_name, dialect, 0, sum(calls), sum(suppressed), NULL
FROM (
    SELECT tenant, service_name, dialect, calls, 0 AS suppressed FROM new_lone
    UNION ALL SELECT tenant, service_name, dialect, 1, 0 FROM new_call
    UNION ALL SELECT tenant, service_name, dialect, -1, 0 FROM old_call
    UNION ALL SELECT tenant, service_name, dialect, 0, 1 FROM suppressed
    UNION ALL SELECT tenant, service_name, dialect, 0, -1 FROM old_member
)
GROUP BY tenant, service_name, dialect
HAVING sum(calls) <> 0 OR sum(suppressed) <> 0
