CREATE OR REPLACE TEMP TABLE account_sum AS
SELECT tenant, service_name, dialect,
    sum(stored) AS stored, sum(calls) AS calls, sum(suppressed) AS suppressed,
    max(last_event_time) AS last_event_time
FROM emitter_count
GROUP BY tenant, service_name, dialect
