"""Keys of reports as SQL expressions; `ingest.join_flags` is the same in Python."""

from typing import Final

from controlplane.ingest.declared_pairs import INSTRUMENTOR_SCOPES, NATIVE_SCOPES

_PAIRED: Final = ", ".join(f"'{scope}'" for scope in sorted(INSTRUMENTOR_SCOPES | NATIVE_SCOPES))

KEY_SQL: Final = {
    "is_of_request": "(layer = 'engine' AND coalesce(response_id, '') <> '')",
    "request_key": (
        "hash('request', domain, tenant, key_id, service_name, scope_name, whole_id,"
        " CASE WHEN whole_id = response_id THEN hash(start_time, input_tokens) END)"
    ),
    "is_half_of_pair": (
        "(layer = 'client' AND status = 'error' AND coalesce(response_id, '') = ''"
        f" AND scope_name IN ({_PAIRED}))"
    ),
    "pair_key": (
        "hash('pair', domain, tenant, key_id, service_name, epoch_us(start_time) // 60000000)"
    ),
}
"""Expressions over a report's columns and `whole_id`, its `join_id`."""
