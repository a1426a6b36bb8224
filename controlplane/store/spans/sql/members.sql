-- Reports with a key that is shared by two sides, or by two revisions of one span. A key that too
-- many share is none; the settlement that finds it out settles its reports once more without it.
CREATE OR REPLACE TEMP TABLE member AS
WITH repeated AS (
    -- Nearly every key has one row: counting sides and spans is for the few that have more.
    SELECT kind, key_hash FROM found GROUP BY ALL HAVING count(*) > 1
),
shared AS (
    SELECT kind, key_hash
    FROM found
    SEMI JOIN repeated USING (kind, key_hash)
    GROUP BY ALL
    HAVING min(side) <> max(side)
        OR (kind = 3 AND count(*) > 1)
        OR count(*) > count(DISTINCT (trace_lo, span_id, start_time))
),
candidate AS (
    SELECT *, CASE kind WHEN 0 THEN 0 ELSE hour_of(start_time) END AS hour
    FROM found
    SEMI JOIN shared USING (kind, key_hash)
),
crowded AS (
    SELECT kind, key_hash, hour
    FROM candidate
    GROUP BY ALL
    HAVING CASE
        WHEN kind IN (1, 2) THEN count(DISTINCT (side, start_time)) FILTER (NOT is_new)
        ELSE count(*) FILTER (NOT is_new)
    END > most_sharers(kind)
),
usable AS (
    SELECT * FROM candidate ANTI JOIN crowded USING (kind, key_hash, hour)
),
live AS (
    SELECT kind, key_hash
    FROM usable
    GROUP BY ALL
    HAVING min(side) <> max(side)
        OR (kind = 3 AND count(*) > 1)
        OR count(*) > count(DISTINCT (trace_lo, span_id, start_time))
)
SELECT trace_lo, span_id, start_time, bool_or(is_new) AS is_new
FROM usable
SEMI JOIN live USING (kind, key_hash)
GROUP BY ALL
