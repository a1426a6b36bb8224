"""Keys of reports as SQL expressions; `ingest.join_flags` is the same in Python."""

from typing import Final

from controlplane.core.instants import MINUTE_US
from controlplane.ingest.declared_pairs import (
    HALVED_SCOPES,
    INSTRUMENTOR_SCOPES,
    NATIVE_SCOPES,
)
from controlplane.ingest.join_keys import CLOCKS_APART_US


def _listed(scopes: frozenset[str]) -> str:
    return ", ".join(f"'{scope}'" for scope in sorted(scopes))


_PAIRED: Final = _listed(INSTRUMENTOR_SCOPES | NATIVE_SCOPES)
_HALVED: Final = _listed(HALVED_SCOPES)
_IS_OF_STREAM: Final = f"scope_name IN ({_HALVED}) AND (duration_us = 0 OR usage_state <> 'exact')"

_IS_GATEWAY: Final = "(layer = 'proxy' OR key_role = 'proxy')"
_START: Final = "epoch_us(start_time)"
_MINUTE_OF_CELL: Final = (
    f"({_START} + CASE WHEN {_IS_GATEWAY} THEN {CLOCKS_APART_US} ELSE 0 END) // {MINUTE_US}"
)
_CELL_KEY: Final = (
    "hash('cell', domain, gateway, billing_model, status, coalesce(input_tokens, 0),"
    " coalesce(input_tokens, 0) + coalesce(output_tokens, 0)) // 2"
    f" + ({_MINUTE_OF_CELL} + {{offset}})::UBIGINT"
)
"""Cells of one group are neighbors in number, so that they are found from each other."""

KEY_SQL: Final = {
    "is_of_gateway": f"(gateway IS NOT NULL AND ({_IS_GATEWAY} OR layer = 'client'))",
    "is_gateway": _IS_GATEWAY,
    "cell_key": _CELL_KEY.format(offset=1),
    "cell_key_before": _CELL_KEY.format(offset=0),
    "is_of_request": "(layer = 'engine' AND coalesce(response_id, '') <> '')",
    "request_key": (
        "hash('request', domain, tenant, key_id, service_name, scope_name, whole_id,"
        " CASE WHEN whole_id = response_id THEN hash(start_time, input_tokens) END)"
    ),
    "is_half_of_pair": (
        "(layer = 'client' AND coalesce(response_id, '') = ''"
        f" AND (status = 'error' AND scope_name IN ({_PAIRED}) OR {_IS_OF_STREAM}))"
    ),
    "is_answer_of_stream": (
        "(layer = 'client' AND coalesce(response_id, '') = '' AND duration_us = 0"
        f" AND scope_name IN ({_HALVED}))"
    ),
    "is_request_of_stream": (
        "(layer = 'client' AND coalesce(response_id, '') = ''"
        f" AND duration_us > 0 AND {_IS_OF_STREAM})"
    ),
    "next_pair_key": (
        "hash('pair', domain, tenant, key_id, service_name, epoch_us(start_time) // 60000000 + 1)"
    ),
    "pair_key": (
        "hash('pair', domain, tenant, key_id, service_name, epoch_us(start_time) // 60000000)"
    ),
}
"""Expressions over a report's columns and `whole_id`, its `join_id`."""
