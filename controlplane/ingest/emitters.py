"""Whose account an item goes to: the tenant and key it came under, and the program that sent it."""

from typing import Final, NamedTuple

import numpy as np

from controlplane.ingest.attributes import ABSENT, AttributeTable
from controlplane.ingest.columns import Column
from controlplane.ingest.texts import texts_at
from controlplane.signals.semconv import SERVICE_NAME
from controlplane.signals.sender import Sender

INSTANCE_KEYS: Final = ("service.instance.id", "k8s.pod.name", "host.name")
"""What names a replica of a service, best first."""
MAX_INSTANCE_CHARS: Final = 128
_MAX_ATTRIBUTES: Final = 128


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


def instances_of(resources: Column) -> list[str]:
    """Name the replica that each resource is, '' where it says none."""
    table = AttributeTable(resources, max_per_row=_MAX_ATTRIBUTES)
    names = [""] * table.rows
    for key in reversed(INSTANCE_KEYS):
        at = table.at(key)
        held = np.flatnonzero(at != ABSENT)
        texts = texts_at(table, at[held], max_chars=MAX_INSTANCE_CHARS).to_pylist()
        for row, text in zip(held.tolist(), texts, strict=True):
            names[row] = text or names[row]
    return names
