"""Arrow schemas of GPU cost: a bucket's lines, and each call's part."""

from typing import Any, Final

import pyarrow as pa

from controlplane.signals.schema import TIMESTAMP

_SHARE: Final[list["pa.Field[Any]"]] = [
    pa.field("pool", pa.string()),
    pa.field("bucket", TIMESTAMP),
    pa.field("slice", pa.string()),
    pa.field("tenant", pa.string()),  # '': an idle line that nobody bears
    pa.field("team", pa.string()),
    pa.field("model", pa.string()),
    pa.field("is_idle", pa.bool_()),
    pa.field("calls", pa.int64()),
    pa.field("cost_nusd", pa.int64()),
]
_CALL_COST: Final[list["pa.Field[Any]"]] = [
    pa.field("pool", pa.string()),
    pa.field("bucket", TIMESTAMP),
    pa.field("call_id", pa.string()),
    pa.field("tenant", pa.string()),
    pa.field("cost_nusd", pa.int64()),
    pa.field("idle_nusd", pa.int64()),  # what it bears of idle time, under `pro_rata`
]
SHARE_SCHEMA: Final = pa.schema(_SHARE)
CALL_COST_SCHEMA: Final = pa.schema(_CALL_COST)
