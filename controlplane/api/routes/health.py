"""Is it alive, is it ready, and how are its dependencies."""

import asyncio
import time
from collections.abc import Sequence
from enum import StrEnum
from typing import Final

import msgspec
import structlog
from litestar import Controller, Response, get
from litestar.openapi.datastructures import ResponseSpec

from controlplane.api.guards import Injected, open_to_all
from controlplane.api.services import HealthCheck, Services

CHECK_SECONDS: Final = 2.0
"""A check that takes longer counts as failed."""
UNAVAILABLE: Final = 503

log = structlog.stdlib.get_logger()


class Health(StrEnum):
    """The whole: a failed check that is not vital only degrades."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    UNHEALTHY = "unhealthy"


class CheckResult(msgspec.Struct, frozen=True):
    """One dependency now; what exactly failed is in the log, not here."""

    name: str
    ok: bool
    vital: bool
    latency_ms: float
    detail: str


class HealthReport(msgspec.Struct, frozen=True):
    """The body of `/health` and `/health/ready`."""

    status: Health
    version: str
    checks: tuple[CheckResult, ...]


_READY = open_to_all()
_READY["responses"][UNAVAILABLE] = ResponseSpec(
    HealthReport, generate_examples=False, description="A vital dependency does not work"
)


class HealthController(Controller):
    """`/health`, `/health/live`, `/health/ready`; open, so that a probe needs no key."""

    path = "/health"
    tags: Sequence[str] | None = ("health",)

    @get("/live", **open_to_all())
    async def live(self) -> dict[str, str]:
        """Answer 200 while the process serves requests."""
        return {"status": "alive"}

    @get("/ready", **_READY)
    async def ready(self, services: Injected) -> Response[HealthReport]:
        """Answer 200 when every vital dependency works, else 503."""
        report = await _report(services)
        failed = report.status is Health.UNHEALTHY
        return Response(report, status_code=UNAVAILABLE if failed else 200)

    @get("/", **open_to_all())
    async def health(self, services: Injected) -> HealthReport:
        """Answer 200 with the state of every dependency, whatever it is."""
        return await _report(services)


async def _report(services: Services) -> HealthReport:
    checks = tuple(await asyncio.gather(*(_run(check) for check in services.checks)))
    status = Health.HEALTHY
    if any(not check.ok for check in checks):
        vital = any(not check.ok and check.vital for check in checks)
        status = Health.UNHEALTHY if vital else Health.DEGRADED
    return HealthReport(status, services.version, checks)


async def _run(check: HealthCheck) -> CheckResult:
    started = time.perf_counter()
    try:
        detail = await asyncio.wait_for(asyncio.to_thread(check.probe), CHECK_SECONDS)
        ok = True
    except TimeoutError:
        detail, ok = f"no answer within {CHECK_SECONDS:g} s", False
    except Exception as error:
        log.warning("health_check_failed", check=check.name, exc_info=error)
        detail, ok = "failed; see the log", False
    latency_ms = round((time.perf_counter() - started) * 1_000, 3)
    return CheckResult(check.name, ok, check.vital, latency_ms, detail)
