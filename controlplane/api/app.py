"""The Litestar application: routes, and what surrounds each of them."""

from functools import partial
from typing import Any, Final

from litestar import Litestar, Router
from litestar.connection import ASGIConnection
from litestar.datastructures import State
from litestar.di import Provide
from litestar.exceptions import NotFoundException
from litestar.handlers import BaseRouteHandler
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.openapi.spec import Components, SecurityScheme
from litestar.types import ControllerRouterHandler

from controlplane.api.authenticate import Gate, authentication
from controlplane.api.edge import add_headers, check_host, observe
from controlplane.api.guards import refuse_parameters, require_scope
from controlplane.api.policy_watch import PolicyWatch
from controlplane.api.problem import exception_handlers
from controlplane.api.rate_limit import ConnectLimiter
from controlplane.api.routes.alerts import AlertController
from controlplane.api.routes.attribution import AttributionController
from controlplane.api.routes.budgets import BudgetController
from controlplane.api.routes.cache import CacheController
from controlplane.api.routes.calls import CallController
from controlplane.api.routes.change import ChangeController
from controlplane.api.routes.completeness import CompletenessController
from controlplane.api.routes.contracts import ContractController
from controlplane.api.routes.costs import CostController
from controlplane.api.routes.currencies import CurrencyController
from controlplane.api.routes.erasures import ErasureController
from controlplane.api.routes.exports import ExportController
from controlplane.api.routes.gpu import GpuController
from controlplane.api.routes.health import HealthController
from controlplane.api.routes.keys import KeyController
from controlplane.api.routes.meta import MetaController
from controlplane.api.routes.metrics import MetricsController
from controlplane.api.routes.opencost import OpenCostController, OpenCostRootController
from controlplane.api.routes.own_prices import OwnPriceController
from controlplane.api.routes.policy import PolicyController
from controlplane.api.routes.policy_changes import PolicyChangeController
from controlplane.api.routes.price_imports import PriceImportController
from controlplane.api.routes.prices import PriceController
from controlplane.api.routes.quality import QualityController
from controlplane.api.routes.quotas import QuotaController
from controlplane.api.routes.reconciliations import ReconciliationController
from controlplane.api.routes.refusals import RefusalController
from controlplane.api.routes.replay import ReplayController
from controlplane.api.routes.rerates import RerateController
from controlplane.api.routes.scores import ScoreController
from controlplane.api.routes.showback import ShowbackController
from controlplane.api.routes.unit_costs import UnitCostController
from controlplane.api.routes.what_if import WhatIfController
from controlplane.api.services import Services
from controlplane.api.sync_group import SyncGroup
from controlplane.pipelines.sync import sync_together

MAX_BODY_BYTES: Final = 4 * 2**20
"""Above the largest sync (1,000 settles of some 700 bytes); anything longer is refused unread."""
CONTROLLERS: Final[tuple[ControllerRouterHandler, ...]] = (
    AlertController,
    AttributionController,
    BudgetController,
    RefusalController,
    CompletenessController,
    CacheController,
    CallController,
    ChangeController,
    CostController,
    ExportController,
    GpuController,
    HealthController,
    KeyController,
    MetaController,
    MetricsController,
    OpenCostController,
    OpenCostRootController,
    PolicyController,
    PolicyChangeController,
    QuotaController,
    PriceController,
    PriceImportController,
    ContractController,
    OwnPriceController,
    CurrencyController,
    RerateController,
    WhatIfController,
    QualityController,
    ErasureController,
    ReconciliationController,
    ReplayController,
    ScoreController,
    ShowbackController,
    UnitCostController,
)


def create_app(services: Services) -> Litestar:
    """Build the application; it opens nothing and starts nothing."""

    def provide_services() -> Services:
        return services

    return Litestar(
        route_handlers=CONTROLLERS,
        dependencies={"services": Provide(provide_services, sync_to_thread=False)},
        exception_handlers=exception_handlers(),
        guards=[require_scope, refuse_parameters],
        middleware=[observe, check_host, authentication],
        before_send=[add_headers],
        request_max_body_size=MAX_BODY_BYTES,
        openapi_config=_openapi(services.version),
        logging_config=None,  # the process configures structlog; Litestar would touch the root logger
        debug=False,
        state=State(
            {
                "services": services,
                "gate": Gate(services),
                "sync_group": SyncGroup(partial(sync_together, tools=services.sync)),
                "policy_watch": PolicyWatch(services.publishing.policies.serving),
                "connects": ConnectLimiter(services.connects_per_second),
            }
        ),
    )


def _openapi(version: str) -> OpenAPIConfig:
    # Litestar insists on pages of its own for the schema; ours is served by MetaController.
    hidden = Router(
        path="/schema",
        route_handlers=[],
        guards=[_absent],
        include_in_schema=False,
        opt={"public": True},
    )
    return OpenAPIConfig(
        title="Control plane for AI inference",
        version=version,
        use_handler_docstrings=True,
        components=Components(
            security_schemes={
                "bearer": SecurityScheme(
                    type="http",
                    scheme="bearer",
                    description="`cp_<kind>_<id>_<secret>`, or a session from POST /api/v1/session",
                )
            }
        ),
        openapi_router=hidden,
        render_plugins=[JsonRenderPlugin()],
    )


def _absent(_connection: ASGIConnection[Any, Any, Any, Any], _handler: BaseRouteHandler) -> None:
    raise NotFoundException
