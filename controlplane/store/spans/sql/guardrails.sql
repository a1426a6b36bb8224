SELECT name, action, count(*) AS events
FROM call_event
WHERE tenant = ANY($tenants) AND kind = 'guardrail'
GROUP BY ALL
ORDER BY ALL
