-- What spans share is said once (compact.py): a span is its own facts and the number of a context.
-- `span` is now the view that puts them together again, with the columns it had as a table.
-- The digest is BLAKE2b of the values; NULL for contexts from before this file.
CREATE TABLE span_context AS
SELECT
    row_number() OVER () AS context_id,
    NULL::UBIGINT AS digest_hi,
    NULL::UBIGINT AS digest_lo,
    *
FROM (
    SELECT DISTINCT
        domain, key_id, key_role, kind, service_name, scope_name, dialect, report_kind, layer,
        provider, operation, request_model, response_model, billing_model, is_stream, status,
        error_type, http_status, finish_reason, service_tier, usage_state, usage_reason, tenant,
        team, project, feature, api_key, environment, region, attributed_by, cost_state,
        cost_reason, price_id, price_provenance
    FROM span
);

CREATE TABLE span_fact AS
SELECT
    span.* EXCLUDE (
        domain, key_id, key_role, kind, service_name, scope_name, dialect, report_kind, layer,
        provider, operation, request_model, response_model, billing_model, is_stream, status,
        error_type, http_status, finish_reason, service_tier, usage_state, usage_reason, tenant,
        team, project, feature, api_key, environment, region, attributed_by, cost_state,
        cost_reason, price_id, price_provenance
    ),
    context_id
FROM span
JOIN span_context
    ON span.domain IS NOT DISTINCT FROM span_context.domain
    AND span.key_id IS NOT DISTINCT FROM span_context.key_id
    AND span.key_role IS NOT DISTINCT FROM span_context.key_role
    AND span.kind IS NOT DISTINCT FROM span_context.kind
    AND span.service_name IS NOT DISTINCT FROM span_context.service_name
    AND span.scope_name IS NOT DISTINCT FROM span_context.scope_name
    AND span.dialect IS NOT DISTINCT FROM span_context.dialect
    AND span.report_kind IS NOT DISTINCT FROM span_context.report_kind
    AND span.layer IS NOT DISTINCT FROM span_context.layer
    AND span.provider IS NOT DISTINCT FROM span_context.provider
    AND span.operation IS NOT DISTINCT FROM span_context.operation
    AND span.request_model IS NOT DISTINCT FROM span_context.request_model
    AND span.response_model IS NOT DISTINCT FROM span_context.response_model
    AND span.billing_model IS NOT DISTINCT FROM span_context.billing_model
    AND span.is_stream IS NOT DISTINCT FROM span_context.is_stream
    AND span.status IS NOT DISTINCT FROM span_context.status
    AND span.error_type IS NOT DISTINCT FROM span_context.error_type
    AND span.http_status IS NOT DISTINCT FROM span_context.http_status
    AND span.finish_reason IS NOT DISTINCT FROM span_context.finish_reason
    AND span.service_tier IS NOT DISTINCT FROM span_context.service_tier
    AND span.usage_state IS NOT DISTINCT FROM span_context.usage_state
    AND span.usage_reason IS NOT DISTINCT FROM span_context.usage_reason
    AND span.tenant IS NOT DISTINCT FROM span_context.tenant
    AND span.team IS NOT DISTINCT FROM span_context.team
    AND span.project IS NOT DISTINCT FROM span_context.project
    AND span.feature IS NOT DISTINCT FROM span_context.feature
    AND span.api_key IS NOT DISTINCT FROM span_context.api_key
    AND span.environment IS NOT DISTINCT FROM span_context.environment
    AND span.region IS NOT DISTINCT FROM span_context.region
    AND span.attributed_by IS NOT DISTINCT FROM span_context.attributed_by
    AND span.cost_state IS NOT DISTINCT FROM span_context.cost_state
    AND span.cost_reason IS NOT DISTINCT FROM span_context.cost_reason
    AND span.price_id IS NOT DISTINCT FROM span_context.price_id
    AND span.price_provenance IS NOT DISTINCT FROM span_context.price_provenance
ORDER BY span.rowid;

DROP TABLE span;

CREATE VIEW span AS
SELECT
    span_fact.* EXCLUDE (context_id),
    span_context.* EXCLUDE (context_id, digest_hi, digest_lo)
FROM span_fact
JOIN span_context USING (context_id);
