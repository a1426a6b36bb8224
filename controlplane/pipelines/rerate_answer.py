"""What a re-rate changes, as people and the API are told: money is text."""

from datetime import datetime

import msgspec

from controlplane.core.money import format_usd
from controlplane.pipelines.rerate import RerateReport
from controlplane.pricing.rerate import RunState


class RerateAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A report as it is shown."""

    run_id: str
    state: str
    price_version: str
    start: datetime
    end: datetime
    tenants: tuple[str, ...]
    basis: str
    calls: int
    corrections: int
    old_usd: str
    new_usd: str
    moved_usd: str
    groups: list[dict[str, object]]


def to_answer(report: RerateReport) -> RerateAnswer:
    """Cross to what people and the API are told."""
    return RerateAnswer(
        run_id=report.run_id,
        state=(RunState.APPLIED if report.is_applied else RunState.PREVIEWED).value,
        price_version=report.price_version,
        start=report.start,
        end=report.end,
        tenants=report.tenants,
        basis=report.basis,
        calls=report.calls,
        corrections=report.corrections,
        old_usd=format_usd(report.old_nusd),
        new_usd=format_usd(report.new_nusd),
        moved_usd=format_usd(report.moved_nusd),
        groups=[
            {
                "tenant": group.tenant,
                "model": group.model,
                "calls": group.calls,
                "newly_priced": group.newly_priced,
                "old_usd": format_usd(group.old_nusd),
                "new_usd": format_usd(group.new_nusd),
                "moved_usd": format_usd(group.moved_nusd),
            }
            for group in report.groups
        ],
    )
