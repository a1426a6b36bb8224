"""Whose account an item goes to: the tenant and key it came under, and the program that sent it."""

from typing import NamedTuple

from controlplane.signals.semconv import SERVICE_NAME
from controlplane.signals.sender import Sender


class Emitter(NamedTuple):
    """One program's items of one tenant; a trusted key may send for many tenants."""

    tenant: str
    key_id: str
    service_name: str


def emitter_of(
    sender: Sender, item: dict[str, str], resource: dict[str, str] | None = None
) -> Emitter:
    """Name the emitter of an item, by its attributes and its resource's."""
    said = resource or {}
    return Emitter(sender.tenant_of(item, said), sender.key_id, said.get(SERVICE_NAME, ""))
