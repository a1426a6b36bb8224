"""`controlplane rates import`: dated exchange rates from a file."""

from pathlib import Path
from typing import Final

import msgspec

from controlplane.bootstrap.metadata import open_metadata
from controlplane.bootstrap.system import SystemClock
from controlplane.core.errors import InvalidInputError
from controlplane.pricing.currency import read_rates_csv
from controlplane.settings import Settings
from controlplane.store.metadata.currencies import ExchangeRateRepository

MAX_FILE_BYTES: Final = 16 * 2**20


class RatesImported(msgspec.Struct, frozen=True, kw_only=True):
    """What was recorded."""

    source: str
    rates: int
    currencies: tuple[str, ...]


def import_rates(settings: Settings, file: Path, *, source: str) -> RatesImported:
    """Append the rates of a CSV file, all of them or none.

    Raises:
        InvalidInputError: no such file, or a line that is no rate.
    """
    try:
        if file.stat().st_size > MAX_FILE_BYTES:
            raise InvalidInputError("file", f"is above {MAX_FILE_BYTES} bytes")
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as wrong:
        raise InvalidInputError("file", f"{file}: {wrong}", "Name a CSV file") from None
    rates = read_rates_csv(text, source=source, now=SystemClock().now())
    engine = open_metadata(settings)
    try:
        ExchangeRateRepository(engine).add(rates)
    finally:
        engine.dispose()
    codes = tuple(sorted({rate.currency for rate in rates}))
    return RatesImported(source=source, rates=len(rates), currencies=codes)
