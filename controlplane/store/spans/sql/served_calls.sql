-- Self-hosted calls in progress inside a window.
SELECT
    call_id, tenant, team,
    coalesce(billing_model, response_model, request_model, '') AS model,
    request_model, start_time, duration_us,
    coalesce(input_tokens, 0) AS input_tokens,
    coalesce(cached_input_tokens, 0) AS cached_tokens,
    coalesce(output_tokens, 0) AS output_tokens,
    coalesce(queue_us, 0) AS queue_us
FROM call
WHERE start_time >= $from AND start_time < $end AND provider = 'self-hosted'
    AND epoch_us(start_time) + duration_us >= epoch_us($start::TIMESTAMPTZ)
ORDER BY call_id
