-- How many keys each hour has: those of reports, and the traces of other spans.
SELECT hour_of(start_time) AS hour, count(*)
FROM (
    SELECT start_time FROM report_key WHERE start_time >= $start AND start_time < $end
    UNION ALL
    SELECT start_time
    FROM span
    WHERE start_time >= $start AND start_time < $end AND report_kind <> 'call'
)
GROUP BY hour
