"""What the items of a stream say of its usage: all that is known of it when a client leaves."""

from collections.abc import Mapping
from datetime import datetime

from controlplane.agent.http_answer import UsageReader
from controlplane.agent.settle import Ending


class ItemReader:
    """Notes every item as a front gets it: bytes, mappings, or a client library's objects."""

    def __init__(self) -> None:
        self._reader = UsageReader(is_events=True)

    def note(self, item: object) -> None:
        """Take one item in."""
        if isinstance(item, bytes | str):
            self._reader.feed(item.encode() if isinstance(item, str) else item)
        elif isinstance(item, Mapping):
            self._reader.note(item)
        elif getattr(item, "usage", None) or getattr(item, "response", None):
            dump = getattr(item, "model_dump", None)
            if callable(dump):
                self._reader.note(dump(mode="json", exclude_none=True))

    def left(self, ended_at: datetime) -> Ending:
        """Say how a stream ended that did not reach its end: its usage if that had come already."""
        return Ending(
            ended_at=ended_at,
            usage=self._reader.usage(),
            read_usage=self._reader.read_usage(),
            status="error",
            error_type="cancelled",
            response_id=self._reader.response_id,
        )
