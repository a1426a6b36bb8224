"""Who pays, as data: the rules in force, their versions, and how to replace them."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

import msgspec
from litestar import Controller, get, put
from litestar.params import JSONBody

from controlplane.api import params as p
from controlplane.api.describe import documented
from controlplane.api.guards import ApiRequest, Injected, needs
from controlplane.attribution.history import RulesVersion
from controlplane.attribution.rules import BUILT_IN, Rule, RulesDocument, check_written
from controlplane.auth.roles import Scope
from controlplane.core.errors import ConflictError, InvalidInputError

MAX_VERSIONS: Final = 100
MAX_NOTE: Final = 500
BY_API: Final = "api"


class RulesView(msgspec.Struct, frozen=True, kw_only=True):
    """A version of the organisation's rules; version 0 is none at all."""

    version: int = 0
    recorded_at: datetime | None = None
    source: str = "built_in"
    recorded_by: str = ""
    note: str = ""
    document: RulesDocument = RulesDocument()


class RulesInForce(msgspec.Struct, frozen=True):
    """The body of `GET /api/v1/attribution/rules`: `built_in` come after the organisation's."""

    organisation: RulesView
    built_in: tuple[Rule, ...]


class RulesVersions(msgspec.Struct, frozen=True):
    """The body of `GET /api/v1/attribution/versions`, newest first."""

    rows: tuple[RulesView, ...]


class NewRules(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to put in the place of version `replaces`."""

    replaces: int
    document: RulesDocument
    note: str = ""


class AttributionController(Controller):
    """`/api/v1/attribution`: the whole installation's rules, which name its tenants."""

    path = "/api/v1/attribution"
    tags: Sequence[str] | None = ("attribution",)

    @get(
        "/rules",
        **needs(Scope.ATTRIBUTION_READ, operator=True),
        sync_to_thread=True,
        operation_class=documented(()),
    )
    def rules(self, request: ApiRequest, services: Injected) -> RulesInForce:
        """Answer what decides who pays, from the next batch that is ingested on."""
        p.read(request.query_params.multi_items(), params=())
        newest = services.rules.latest()
        return RulesInForce(_view(newest) if newest else RulesView(), BUILT_IN.rules)

    @get(
        "/versions",
        **needs(Scope.ATTRIBUTION_READ, operator=True),
        sync_to_thread=True,
        operation_class=documented(()),
    )
    def versions(self, request: ApiRequest, services: Injected) -> RulesVersions:
        """List the newest versions; going back is putting an old document again."""
        p.read(request.query_params.multi_items(), params=())
        return RulesVersions(tuple(map(_view, services.rules.versions(limit=MAX_VERSIONS))))

    @put("/rules", **needs(Scope.ATTRIBUTION_WRITE, 409, operator=True), sync_to_thread=True)
    def replace(
        self, request: ApiRequest, data: JSONBody[NewRules], services: Injected
    ) -> RulesView:
        """Put a new version in force; collectors take it up within two seconds."""
        check_written(data.document)
        if len(data.note) > MAX_NOTE:
            raise InvalidInputError("note", "too long", f"At most {MAX_NOTE} characters")
        newest = services.rules.latest()
        current = newest.version if newest else 0
        if data.replaces != current:
            raise ConflictError(
                f"version {current} is in force, not {data.replaces}. Read it and try again"
            )
        made = RulesVersion(
            version=current + 1,
            recorded_at=services.clock.now(),
            source=BY_API,
            recorded_by=request.user.name,
            note=data.note,
            document=data.document,
        )
        services.rules.append(made)
        return _view(made)


def _view(version: RulesVersion) -> RulesView:
    return msgspec.convert(version, RulesView, from_attributes=True)
