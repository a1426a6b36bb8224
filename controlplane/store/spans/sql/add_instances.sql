-- Those that are known, and others while there is room.
INSERT INTO emitter_instance
SELECT tenant, key_id, service_name, instance, received, last_received, last_received
FROM (
    SELECT batch_instance.*, known.instance IS NOT NULL AS is_known, coalesce(taken, 0) AS taken
    FROM batch_instance
    LEFT JOIN emitter_instance AS known USING (tenant, key_id, service_name, instance)
    LEFT JOIN (
        SELECT tenant, key_id, service_name, count(*) AS taken FROM emitter_instance GROUP BY ALL
    ) USING (tenant, key_id, service_name)
)
QUALIFY is_known OR taken + row_number() OVER (
    PARTITION BY tenant, key_id, service_name, is_known ORDER BY received DESC, instance
) <= $most
ON CONFLICT DO UPDATE SET
    received = received + excluded.received,
    last_received = greatest(last_received, excluded.last_received)
