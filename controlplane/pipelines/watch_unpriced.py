"""Usage without a price → a finding within a round of its first call: it is money nobody sees."""

from datetime import datetime, timedelta
from typing import Final

from controlplane.alerts.alert import Finding, Severity
from controlplane.core.calendar import Window
from controlplane.pipelines.gpu_cost import BASIS
from controlplane.pricing.coverage import UnpricedUsage
from controlplane.pricing.price_book import NO_GPU_PRICE
from controlplane.signals.ports import SpanReader
from controlplane.signals.queries import CostQuery
from controlplane.signals.vocabulary import CostState

LOOK_BACK: Final = timedelta(hours=1)
AHEAD: Final = timedelta(minutes=5)
"""Emitters whose clocks run ahead are heard too."""
UNNAMED: Final = "unnamed"
TO_BE_NAMED: Final = timedelta(minutes=5)
"""An engine names no model: what a call was is known when its proxy or client has reported, too."""
POOL_KNOWN: Final = timedelta(days=1)
POOL_BILLED: Final = timedelta(minutes=20)
"""A call of a pool has its cost when its quarter of an hour is over and worked out."""
ADVICE: Final = {
    NO_GPU_PRICE: "Add the pool that serves it to `gpu_pools` or with PUT /gpu/pools, then POST /gpu/rebuild",
    "no_price_at_time": "Add a price with an earlier `valid_from`, then re-rate",
    "missing_rate": "Add the rates that the reasons name to its price in `price_overrides`, then re-rate",
    "cost_out_of_range": "Check the unit of its price in `price_overrides`: the cost is too large to be one",
}
"""What mends each reason; the part of a reason before a colon is looked up."""
ADD_A_PRICE: Final = "Add it to `price_overrides` or import a price list, then re-rate"


def unpriced_usage(
    reader: SpanReader, tenants: tuple[str, ...], window: Window
) -> list[UnpricedUsage]:
    """Answer what has no price, by provider, model and reason, most tokens first."""
    rows = reader.costs(
        CostQuery(
            tenants=tenants,
            window=window,
            group_by=("provider", "model", "cost_reason"),
            filters={"cost_state": (CostState.UNPRICED.value,)},
        )
    ).to_pylist()
    found = [
        UnpricedUsage(
            provider=row["provider"],
            model=row["model"],
            reason=row["cost_reason"],
            calls=row["calls"],
            input_tokens=row["input_tokens"],
            output_tokens=row["output_tokens"],
        )
        for row in rows
    ]
    return sorted(found, key=lambda one: -(one.input_tokens + one.output_tokens))


def unpriced_findings(reader: SpanReader, tenant: str, now: datetime) -> list[Finding]:
    """Return a finding per model that had calls without a price in the last hour."""
    found = unpriced_usage(reader, (tenant,), Window(now - LOOK_BACK, now + AHEAD))
    if any(usage.model is None for usage in found):
        waited = Window(now - LOOK_BACK, now - TO_BE_NAMED)
        unnamed = [one for one in unpriced_usage(reader, (tenant,), waited) if one.model is None]
        found = [*(usage for usage in found if usage.model is not None), *unnamed]
    if any(_of_pool(usage) for usage in found):
        found = _but_to_be_billed(reader, tenant, found, now=now)
    by_model: dict[str, list[UnpricedUsage]] = {}
    for usage in found:
        if usage.wants_a_price:
            by_model.setdefault(usage.model or UNNAMED, []).append(usage)
    return [_finding(tenant, model, used) for model, used in sorted(by_model.items())]


def _of_pool(usage: UnpricedUsage) -> bool:
    return (usage.reason or "").partition(":")[0] == NO_GPU_PRICE


def _but_to_be_billed(
    reader: SpanReader, tenant: str, found: list[UnpricedUsage], *, now: datetime
) -> list[UnpricedUsage]:
    """Leave out recent calls of models that a GPU pool has billed before: it is about to again."""
    rows = reader.costs(
        CostQuery(
            tenants=(tenant,),
            window=Window(now - POOL_KNOWN, now),
            group_by=("model",),
            filters={"cost_reason": (BASIS,)},
        )
    ).to_pylist()
    billed = {row["model"] for row in rows}
    waited = Window(now - LOOK_BACK, now - POOL_BILLED)
    late = unpriced_usage(reader, (tenant,), waited) if billed else []

    def is_served(usage: UnpricedUsage) -> bool:
        return _of_pool(usage) and usage.model in billed

    return [
        *(usage for usage in found if not is_served(usage)),
        *(usage for usage in late if is_served(usage)),
    ]


def _finding(tenant: str, model: str, used: list[UnpricedUsage]) -> Finding:
    calls = sum(one.calls for one in used)
    tokens = sum(one.input_tokens + one.output_tokens for one in used)
    return Finding(
        labels={
            "alertname": "UnpricedUsage",
            "tenant": tenant,
            "model": model,
            "severity": Severity.TICKET,
            "detector_id": "unpriced_usage",
        },
        annotations={
            "summary": (
                f"Model {model}: {calls:,} call{'' if calls == 1 else 's'} ({tokens:,} tokens) "
                f"in an hour without a price"
            ),
            "reasons": ", ".join(sorted({one.reason or "unknown" for one in used})),
            "providers": ", ".join(sorted({one.provider or UNNAMED for one in used})),
            "action": ". ".join(sorted({advice_for(one.reason) for one in used})),
        },
    )


def advice_for(reason: str | None) -> str:
    """Say what gives calls of a reason their price; most want a row of a price list."""
    return ADVICE.get((reason or "").partition(":")[0], ADD_A_PRICE)
