"""At which prices a cost answer is: those of the list, or of contracts where any priced a part of it."""

from collections.abc import Iterable
from enum import StrEnum

import msgspec

from controlplane.pricing.contracts import is_contracted
from controlplane.pricing.history import PriceHistory
from controlplane.signals.ports import SpanReader
from controlplane.signals.queries import CostQuery, Granularity


class Basis(StrEnum):
    """What an amount is stated at, in FOCUS's words."""

    LIST = "list"
    CONTRACTED = "contracted"
    """What was agreed: list prices where no contract holds."""


def basis_in(price_ids: Iterable[str | None]) -> Basis:
    """Return the basis of what these prices priced."""
    return Basis.CONTRACTED if any(map(is_contracted, price_ids)) else Basis.LIST


def basis_of(reader: SpanReader, history: PriceHistory, query: CostQuery) -> Basis:
    """Return the basis of an answer; nothing is read where no contract was ever kept."""
    if not history.has_contracts():
        return Basis.LIST
    asked = msgspec.structs.replace(
        query, granularity=Granularity.TOTAL, group_by=("price_id",), buckets=()
    )
    return basis_in(reader.costs(asked)["price_id"].to_pylist())
