"""Stored calls → what of each commitment they consumed, read from sums wherever sums suffice."""

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from typing import Any, Final

from controlplane.core.calendar import Window
from controlplane.pricing.commitments import (
    Boundary,
    Drawdown,
    boundary_in,
    commitment_periods,
    committed_nusd,
    is_priced_by,
)
from controlplane.pricing.contracts import Contract
from controlplane.signals.ports import SpanReader
from controlplane.signals.queries import CallQuery, CostQuery, Granularity

_NARROWER: Final = (
    (Granularity.DAY, timedelta(days=1)),
    (Granularity.QUARTER_HOUR, timedelta(minutes=15)),
)
_CALL_COLUMNS: Final = ("start_time", "call_id", "cost_nusd")


def drawdowns(reader: SpanReader, contracts: Iterable[Contract], span: Window) -> list[Drawdown]:
    """Answer every period of every commitment that overlaps `span`, over the calls of all tenants."""
    return [
        drawdown(reader, contract, period)
        for contract in contracts
        if committed_nusd(contract) > 0
        for period in commitment_periods(contract, span)
    ]


def drawdown(reader: SpanReader, contract: Contract, period: Window) -> Drawdown:
    """Answer what calls consumed of a period's amount, and in which of them it ran out."""
    tenants, amount = reader.tenants(), committed_nusd(contract)
    rows = list(_sums(reader, contract, CostQuery(tenants=tenants, window=period)))
    used = sum(row["cost_nusd"] for row in rows)
    found = Drawdown(
        contract=contract,
        period=period,
        amount_nusd=amount,
        used_nusd=used,
        calls=sum(row["calls"] for row in rows),
    )
    if used <= amount:
        return found
    ids = tuple(sorted({row["price_id"] for row in rows}))
    return Drawdown(
        contract=contract,
        period=period,
        amount_nusd=amount,
        used_nusd=used,
        calls=found.calls,
        boundary=_boundary(reader, contract, period, ids=ids, amount_nusd=amount),
    )


def _sums(reader: SpanReader, contract: Contract, query: CostQuery) -> Iterator[dict[str, Any]]:
    asked = CostQuery(
        tenants=query.tenants,
        window=query.window,
        granularity=query.granularity,
        group_by=("price_id",),
        filters=query.filters,
    )
    for row in reader.costs(asked).to_pylist():
        if row["price_id"] and is_priced_by(row["price_id"], contract.id):
            yield row


def _boundary(
    reader: SpanReader,
    contract: Contract,
    period: Window,
    *,
    ids: tuple[str, ...],
    amount_nusd: int,
) -> Boundary | None:
    """Narrow the window in which the amount is passed to a day, a quarter of an hour, a call."""
    tenants, before, window = reader.tenants(), 0, period
    for granularity, width in _NARROWER:
        sums: dict[datetime, int] = {}
        query = CostQuery(
            tenants=tenants,
            window=window,
            granularity=granularity,
            filters={"price_id": ids},
        )
        for row in _sums(reader, contract, query):
            at = row["bucket_start"]
            sums[at] = sums.get(at, 0) + row["cost_nusd"]
        for at in sorted(sums):
            if before + sums[at] > amount_nusd:
                window = Window(at, at + width).clip(window)
                break
            before += sums[at]
    asked = CallQuery(tenants=tenants, window=window, filters={"price_id": ids})
    calls = (
        (start, call_id, cost)
        for batch in reader.call_batches(asked)
        for start, call_id, cost in zip(
            *(batch.column(name).to_pylist() for name in _CALL_COLUMNS), strict=True
        )
        if cost is not None
    )
    return boundary_in(calls, before_nusd=before, amount_nusd=amount_nusd)
