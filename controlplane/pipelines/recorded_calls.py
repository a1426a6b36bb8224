"""What is read of recorded calls when they are run again in thought."""

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any, Final, Protocol

import pyarrow as pa

from controlplane.core.tokens import BUCKET_NAMES
from controlplane.policy.document import CALL_FACTS

COLUMNS: Final = (
    "call_id",
    "start_time",
    "duration_us",
    "billing_model",
    "response_model",
    "request_model",
    "service_tier",
    "is_stream",
    "input_tokens",
    "output_tokens",
    "cost_nusd",
    *CALL_FACTS,
    *BUCKET_NAMES,
)


class PriceCall(Protocol):
    """The prices a replay asks."""

    def __call__(
        self,
        *,
        provider: str | None,
        model: str,
        at: datetime,
        usage: Mapping[str, int],
        service_tier: str,
    ) -> int | None:
        """Return nano-USD; None: no price is known."""
        ...


Batches = Callable[[], Iterator[pa.Table]]
"""Every recorded call of the window, oldest first; asked for twice."""


def model_of(call: Mapping[str, Any]) -> str:
    """Name the model that a call was billed as, as far as it is known."""
    return call["billing_model"] or call["response_model"] or call["request_model"] or ""
