-- A tenant does not learn which service of another bills.
SELECT
    service_name,
    dialect,
    CASE WHEN billing_tenant = ANY($tenants) THEN billing_service END AS billing_service,
    CASE WHEN billing_tenant = ANY($tenants) THEN billing_dialect END AS billing_dialect,
    reason,
    count(*)::BIGINT AS reports,
    coalesce(sum(input_tokens), 0)::BIGINT AS input_tokens,
    coalesce(sum(output_tokens), 0)::BIGINT AS output_tokens,
    coalesce(sum(cost_nusd), 0)::BIGINT AS cost_nusd,
    count(*) FILTER (cost_nusd IS NULL)::BIGINT AS unpriced_reports
FROM call_member
WHERE start_time >= $start AND start_time < $end AND tenant = ANY($tenants)
    AND reason <> 'late'  -- billed, by a correction
GROUP BY ALL
ORDER BY cost_nusd DESC, reports DESC,
    service_name, dialect, billing_service NULLS LAST, billing_dialect NULLS LAST, reason
