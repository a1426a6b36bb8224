-- One posting's calls before (-1) and after (+1); a correction counts when it was booked.
SELECT {columns}
FROM (
    SELECT
        *, -posting AS version, old_cost_nusd AS cost_nusd, old_cost_state AS cost_state,
        (-1)::TINYINT AS sign
    FROM adjustment
    WHERE posting = $posting AND old_cost_state IS NOT NULL
    UNION ALL BY NAME
    SELECT
        *, -posting AS version, new_cost_nusd AS cost_nusd, new_cost_state AS cost_state,
        1::TINYINT AS sign
    FROM adjustment
    WHERE posting = $posting AND new_cost_state IS NOT NULL
)
