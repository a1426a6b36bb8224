INSERT INTO call_member BY NAME
SELECT
    call_id, domain, trace_hi, trace_lo, span_id, start_time, 'late' AS reason,
    tenant, service_name, dialect, input_tokens, output_tokens, cost_nusd,
    tenant AS billing_tenant, service_name AS billing_service, dialect AS billing_dialect
FROM late_report
