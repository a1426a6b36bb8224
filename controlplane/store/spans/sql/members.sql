-- Reports with a key that is shared by two sides, or by two revisions of one span. A key that too
-- many share is none; the settlement that finds it out settles its reports once more without it.
CREATE OR REPLACE TEMP TABLE member AS
WITH cell AS (
    SELECT
        kind, key_hash, CASE kind WHEN 0 THEN 0 ELSE epoch_us(start_time) // 3600000000 END AS hour,
        count(*) FILTER (NOT is_new) AS settled
    FROM found
    GROUP BY ALL
),
usable AS (
    SELECT found.*
    FROM found
    JOIN cell
        ON found.kind = cell.kind
        AND found.key_hash = cell.key_hash
        AND cell.hour = CASE found.kind WHEN 0 THEN 0 ELSE epoch_us(start_time) // 3600000000 END
    WHERE cell.settled <= CASE found.kind WHEN 0 THEN $max_in_trace ELSE $max_sharers END
),
live AS (
    SELECT kind, key_hash
    FROM usable
    GROUP BY ALL
    HAVING min(side) <> max(side)
        OR count(*) > count(DISTINCT (domain, trace_hi, trace_lo, span_id, start_time))
)
SELECT domain, trace_hi, trace_lo, span_id, start_time, bool_or(is_new) AS is_new
FROM usable
SEMI JOIN live USING (kind, key_hash)
GROUP BY ALL
