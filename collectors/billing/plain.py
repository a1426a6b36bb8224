"""Any table with a column for each thing, named by a mapping: `day=Date,cost=Amount,model=SKU`."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from collectors.billing.reading import (
    BadLineError,
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
    """Yield a line a row."""
    for row in rows_of(path):
        try:
            yield _line({field: row.get(column) for field, column in mapping.items()})
        except (BadLineError, ValueError) as wrong:
            yield wrong if isinstance(wrong, BadLineError) else BadLineError(str(wrong))


def _line(said: Row) -> BillLine:
    currency = currency_of(said.get("currency"))
    cost = amount_of(said.get("cost"))
    if said.get("cost_cents") not in {None, ""}:
        cents = amount_of(said["cost_cents"])
        cost = None if cents is None else cents.scaleb(-2)
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
