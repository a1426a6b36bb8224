-- The mean time between two output tokens, apart from the time of decoding them all.
DROP VIEW call;
DROP VIEW span;
ALTER TABLE span_fact ADD COLUMN inter_token_us BIGINT;
ALTER TABLE grouped_call ADD COLUMN inter_token_us BIGINT;
ALTER TABLE replaced_call ADD COLUMN inter_token_us BIGINT;

CREATE VIEW span AS
SELECT
    span_fact.* EXCLUDE (context_id),
    span_context.* EXCLUDE (context_id, digest_hi, digest_lo)
FROM span_fact
JOIN span_context USING (context_id);

-- Every call: reports that join no other, and the calls of those that do.
CREATE VIEW call AS
SELECT
    concat('call_', printf('%016x%016x', call_hi, call_lo)) AS call_id,
    domain,
    trace_hi,
    trace_lo,
    span_id,
    start_time,
    batch_seq AS version,
    1::INTEGER AS reports,
    layer AS layers,
    layer = 'agent' AND key_role = 'agent' AS enforced,
    duration_us,
    service_name,
    dialect,
    provider,
    operation,
    request_model,
    response_model,
    billing_model,
    response_id,
    gateway_call_id,
    is_stream,
    status,
    error_type,
    http_status,
    finish_reason,
    service_tier,
    ttft_us,
    queue_us,
    prefill_us,
    decode_us,
    inter_token_us,
    input_tokens,
    cached_input_tokens,
    cache_creation_input_tokens,
    output_tokens,
    reasoning_tokens,
    input_uncached,
    cache_read,
    cache_write_5m,
    cache_write_1h,
    input_audio,
    input_image,
    input_video,
    cache_read_audio,
    output_text,
    output_reasoning,
    output_audio,
    output_image,
    web_searches,
    requests,
    pages,
    audio_seconds,
    gpu_seconds,
    images,
    video_seconds,
    characters,
    usage_state,
    usage_reason,
    reported_cost_nusd,
    tenant,
    team,
    project,
    feature,
    customer,
    user_id,
    api_key,
    environment,
    region,
    attributed_by,
    cost_nusd,
    cost_state,
    cost_reason,
    price_id,
    price_provenance
FROM span
WHERE report_kind = 'call' AND NOT is_grouped AND batch_seq <= (SELECT through FROM settle_state)
UNION ALL BY NAME
FROM grouped_call;
