"""Erasure of a person's data; usage and cost of the calls stay."""

from collections.abc import Sequence

import msgspec
import structlog
from litestar import Controller, post
from litestar.params import JSONBody

from controlplane.api.guards import ApiRequest, Injected, needs, tenants_of
from controlplane.auth.roles import Scope
from controlplane.core.errors import InvalidInputError
from controlplane.ingest.subjects import Subject


class ErasureOrder(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whom to erase; without `apply` nothing changes."""

    tenant: str
    user: str
    apply: bool = False


class ErasureView(msgspec.Struct, frozen=True, kw_only=True):
    """What was, or would be, touched."""

    tenant: str
    spans: int
    traces: int
    applied: bool


class ErasureController(Controller):
    """`/api/v1/erasures`."""

    path = "/api/v1/erasures"
    tags: Sequence[str] | None = ("data quality",)

    @post("/", **needs(Scope.SUBJECTS_ERASE), status_code=200, sync_to_thread=True)
    def erase(
        self, request: ApiRequest, data: JSONBody[ErasureOrder], services: Injected
    ) -> ErasureView:
        """Take a user out of every span and call of a tenant, or count what that would touch.

        The attributes of the user's traces go too. Usage, cost and the number of calls stay. What
        comes later of before now is stored without the user.
        """
        if not data.user:
            raise InvalidInputError("user", "is empty", "Name the user as calls do")
        tenants_of(request, services, wanted=(data.tenant,))
        subject = Subject(data.tenant, data.user)
        erased = services.subjects.erase(subject, now=services.clock.now(), apply=data.apply)
        if erased.applied:
            structlog.get_logger().info(
                "subject_erased", by=request.user.id, tenant=data.tenant, spans=erased.spans
            )
        return ErasureView(
            tenant=data.tenant, spans=erased.spans, traces=erased.traces, applied=erased.applied
        )
