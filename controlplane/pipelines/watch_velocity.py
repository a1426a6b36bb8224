"""Quotas that are in force → a finding each: who spent too fast, and what was done about it."""

from collections.abc import Iterable
from datetime import datetime

from controlplane.alerts.alert import Finding, Severity
from controlplane.core.money import round_usd
from controlplane.policy.velocity import Quota


def velocity_findings(quotas: Iterable[Quota], now: datetime) -> list[Finding]:
    """Return a finding per quota in force; it ends with the quota."""
    return [_finding(quota) for quota in quotas if quota.is_active(now)]


def _finding(quota: Quota) -> Finding:
    what = "Key" if quota.per == "api_key" else "User"
    return Finding(
        labels={
            "alertname": "SpendVelocity",
            "tenant": quota.tenant,
            "scope": quota.scope,
            "limit": quota.limit_id,
            quota.per: quota.name,
            "severity": Severity.PAGE,
            "detector_id": "spend_velocity",
        },
        annotations={
            "summary": (
                f"{what} {quota.name}: {round_usd(quota.spent_nusd)} within "
                f"{quota.window_seconds} s, {round_usd(quota.limit_nusd)} allowed"
            ),
            "since": quota.since.isoformat(),
            "action": (
                f"A quota (rule {quota.id}) holds its calls in scope {quota.scope} back until "
                f"{quota.until.isoformat(timespec='seconds')}, longer while it goes on. "
                f"DELETE /api/v1/policy/quotas/{quota.id}?scope={quota.scope} ends it"
            ),
        },
    )
