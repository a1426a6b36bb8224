SELECT tenant, key_id, service_name, instance, received, first_received, last_received
FROM emitter_instance
WHERE tenant = ANY($tenants) AND last_received >= $start AND first_received < $end
ORDER BY ALL
