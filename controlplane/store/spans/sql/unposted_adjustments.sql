-- One posting's calls before (-1) and after (+1); a correction counts when it was booked.
SELECT {columns}
FROM (
    SELECT
        *, -posting AS version, (-1)::TINYINT AS sign, old_cost_nusd AS cost_nusd,
        old_cost_state AS cost_state, old_cost_reason AS cost_reason,
        old_input_tokens AS input_tokens, old_cached_input_tokens AS cached_input_tokens,
        old_output_tokens AS output_tokens
    FROM adjustment
    WHERE posting = $posting AND old_cost_state IS NOT NULL
    UNION ALL BY NAME
    SELECT
        *, -posting AS version, 1::TINYINT AS sign, new_cost_nusd AS cost_nusd,
        new_cost_state AS cost_state, new_cost_reason AS cost_reason,
        new_input_tokens AS input_tokens, new_cached_input_tokens AS cached_input_tokens,
        new_output_tokens AS output_tokens
    FROM adjustment
    WHERE posting = $posting AND new_cost_state IS NOT NULL
) AS told
ANTI JOIN adjustment_left_out USING (posting, call_id)
