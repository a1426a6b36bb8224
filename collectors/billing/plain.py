"""Any table with a column for each thing, named by a mapping: `day=Date,cost=Amount,model=SKU`."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from collectors.billing.documents import BadLineError
from collectors.billing.reading import (
    Row,
    amount_of,
    currency_of,
    day_of,
    quantity_of,
    rows_of,
    text_of,
)
from controlplane.core.errors import InvalidInputError
from controlplane.core.tokens import BUCKET_NAMES
from controlplane.signals.billing import BillKind, BillLine

FIELDS: Final = (
    "day", "model", "meter", "key", "kind", "quantity", "cost", "cost_cents", "currency",
    "description", "invoice",
)  # fmt: skip


def mapping_of(text: str) -> dict[str, str]:
    """Read `field=column,…`.

    Raises:
        InvalidInputError: an unknown field, a missing day, or no amount at all.
    """
    pairs = [part.partition("=") for part in text.split(",") if part]
    mapping = {field.strip(): column.strip() for field, _, column in pairs}
    for field, column in mapping.items():
        if field not in FIELDS or not column:
            raise InvalidInputError("map", f"{field}={column}", f"Known: {', '.join(FIELDS)}")
    if "day" not in mapping or not mapping.keys() & {"cost", "cost_cents", "quantity"}:
        raise InvalidInputError(
            "map", "lacks a column", "Name day and cost, cost_cents or quantity"
        )
    return mapping


def read(path: Path, mapping: Mapping[str, str]) -> Iterator[BillLine | BadLineError]:
    """Yield a line a row.

    Raises:
        InvalidInputError: no row has a column that the mapping names.
    """
    missing, known = set(mapping.values()), list[str]()
    for row in rows_of(path):
        missing -= row.keys()
        known = known or [str(name) for name in row]
        try:
            yield _line({field: row.get(column) for field, column in mapping.items()})
        except (BadLineError, ValueError) as wrong:
            yield wrong if isinstance(wrong, BadLineError) else BadLineError(str(wrong))
    if known and missing:
        told = ", ".join(sorted(missing))
        raise InvalidInputError("map", f"{path.name} has no {told}", f"It has {', '.join(known)}")


def _line(said: Row) -> BillLine:
    currency = currency_of(said.get("currency"))
    cost = amount_of(said.get("cost"))
    cents = amount_of(said.get("cost_cents"))
    if cents is not None:
        cost = cents.scaleb(-2)
    meter = text_of(said, "meter")
    if meter and meter not in BUCKET_NAMES and meter != "output":
        raise BadLineError(f"meter {meter!r} is no usage bucket")
    if meter in {"output_text", "output_reasoning"}:
        meter = "output"
    return BillLine(
        day=day_of(said.get("day")),
        model=text_of(said, "model"),
        meter=meter,
        key=text_of(said, "key"),
        kind=BillKind((text_of(said, "kind") or "usage").lower()),
        quantity=quantity_of(said.get("quantity")),
        currency=currency,
        cost_usd=cost,
        description=text_of(said, "description") or "",
        invoice_id=text_of(said, "invoice"),
    )
