"""Usage without a price → a finding within a round of its first call: it is money nobody sees."""

from datetime import datetime, timedelta
from typing import Final

from controlplane.alerts.alert import Finding, Severity
from controlplane.core.calendar import Window
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
    by_model: dict[str, list[UnpricedUsage]] = {}
    for usage in found:
        if usage.wants_a_price:
            by_model.setdefault(usage.model or UNNAMED, []).append(usage)
    return [_finding(tenant, model, used) for model, used in sorted(by_model.items())]


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
