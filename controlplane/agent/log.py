"""One JSON line per event on stderr through the standard logger: no dependency, no secret."""

import json
import logging

_logger = logging.getLogger("controlplane.agent")


def say(event: str, **fields: object) -> None:
    """Log an event with fields."""
    _logger.warning("%s", json.dumps({"event": event, **fields}, default=str))
