"""What providers say they billed, in one shape whatever file it came from."""

from datetime import date
from decimal import Decimal
from enum import StrEnum

import msgspec


class BillKind(StrEnum):
    """What a line of a bill is for."""

    USAGE = "usage"
    TAX = "tax"
    FEE = "fee"
    CREDIT = "credit"


class BillLine(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a bill, or of a usage report (`cost_usd` None: it states a quantity only).

    `day` is the source's own UTC day. `meter` is a usage bucket of `core.tokens`, `output` (text and
    reasoning together, as most providers bill them), or None where the source does not say.
    `decimals` is how many the source writes of its amounts: it rounded to them. An amount in another
    `currency` stands in `cost_usd` as it came until `in_usd` converts it.
    """

    day: date
    model: str | None = None
    meter: str | None = None
    key: str | None = None
    kind: BillKind = BillKind.USAGE
    quantity: int | None = None
    cost_usd: Decimal | None = None
    decimals: int | None = None
    description: str = ""
    currency: str = "USD"
    usd_per_unit: Decimal = Decimal(1)
    """The rate that `cost_usd` was converted at."""
    invoice_id: str | None = None
    """The invoice that the source puts the line on; None where it names none, or not yet."""


class BillFile(msgspec.Struct, frozen=True, kw_only=True):
    """One file as it was read: what it is, its hash, and what of it could not be used."""

    name: str
    source: str
    sha256: str
    lines: int
    rejected: tuple[str, ...] = ()
    """The first reasons, with their line; `rejected_lines` counts all."""
    rejected_lines: int = 0
    other_invoices: tuple[str, ...] = ()
    """Invoices that have lines of the file which are of other services, and were not read."""
