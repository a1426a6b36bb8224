"""What an export is asked for, and where its numbers are from."""

from collections.abc import Mapping
from typing import Final

import msgspec

from controlplane.core.calendar import Period, Window
from controlplane.core.errors import InvalidInputError
from controlplane.core.fiscal import GREGORIAN, FiscalCalendar
from controlplane.exports.sharing import SharedRule, check_shares
from controlplane.exports.statement import BY
from controlplane.pipelines.gpu_cost import GpuTools
from controlplane.pricing.currency import USD, ExchangeRates, RateTable
from controlplane.pricing.price_book import PriceBook
from controlplane.signals.ports import SpanReader
from controlplane.usage.ports import KeptReconciliations

FORMATS: Final = ("parquet", "csv")
MAX_ROWS_PER_FILE: Final = 250_000
KINDS: Final = ("traces", "calls", "focus", "statement")
BILLED_KINDS: Final = ("focus", "statement")
"""What may be in another currency than USD."""
WIDTHS: Final = (Period.HOUR, Period.DAY)
"""How long a charge period may be."""


class ExportRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked for: one tenant's calls with a start in the window.

    `charge_period`, `zone` and `calendar` say in which hours or days and in which months a FOCUS
    export is told. `by`, `owner`, the rules and their shares are of statements, which are PDF and CSV whatever
    the format.
    """

    tenant: str
    window: Window
    kind: str = "traces"
    file_format: str = "parquet"
    rows_per_file: int = MAX_ROWS_PER_FILE
    charge_period: Period = Period.DAY
    zone: str = "UTC"
    calendar: FiscalCalendar = GREGORIAN
    currency: str = USD
    """BillingCurrency of a FOCUS export, or the currency of statements; the rates are in the files."""
    by: str = "team"
    owner: str | None = None
    shared_rule: SharedRule = SharedRule.NONE
    shares: Mapping[str, int] = msgspec.field(default_factory=dict)
    """Weights by owner, of the rule `fixed`."""
    idle_rule: SharedRule = SharedRule.NONE
    idle_shares: Mapping[str, int] = msgspec.field(default_factory=dict)
    """The same of idle GPU time."""


class ExportSources(msgspec.Struct, frozen=True):
    """Where an export's numbers are from."""

    reader: SpanReader
    book: PriceBook
    rates: ExchangeRates | None = None
    """Without them everything is in USD."""
    gpu: GpuTools | None = None
    """Without them there is no idle time."""
    reconciliations: KeptReconciliations | None = None
    """Without them no row names an invoice."""

    def rates_of(self, currency: str) -> RateTable:
        """Return the dated rates of a currency; none where none are kept."""
        return RateTable(self.rates.of(currency) if self.rates else ())


def check_request(request: ExportRequest) -> None:
    """Pass a request that can be made.

    Raises:
        InvalidInputError: names the field and what it takes.
    """
    if request.kind not in KINDS:
        raise InvalidInputError("kind", f"{request.kind!r}", f"Use {', '.join(KINDS)}")
    if request.file_format not in FORMATS:
        raise InvalidInputError("format", f"{request.file_format!r}", "Write parquet or csv")
    if request.currency != USD and request.kind not in BILLED_KINDS:
        hint = f"Use kind {' or '.join(BILLED_KINDS)}"
        raise InvalidInputError("currency", f"{request.kind!r} is in USD", hint)
    if request.by not in BY:
        raise InvalidInputError("by", f"{request.by!r}", f"Use one of {', '.join(BY)}")
    if request.charge_period not in WIDTHS:
        raise InvalidInputError("charge_period", f"{request.charge_period!r}", "Use hour or day")
    check_shares(request.shared_rule, request.shares)
    check_shares(request.idle_rule, request.idle_shares, name="idle_shares")
