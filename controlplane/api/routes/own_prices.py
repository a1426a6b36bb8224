"""The organisation's own prices, over HTTP: of custom and self-hosted models, and instead of a list."""

from collections.abc import Sequence

import msgspec
from litestar import Controller, delete, get, put
from litestar.params import JSONBody

from controlplane.api import params as p
from controlplane.api.describe import documented
from controlplane.api.guards import ApiRequest, Injected, needs
from controlplane.api.services import Services
from controlplane.auth.roles import Scope
from controlplane.core.errors import (
    ConfigError,
    ConflictError,
    InvalidInputError,
    NotFoundError,
)
from controlplane.pricing.history import (
    EntryKind,
    PriceEntry,
    append_next,
    own_prices_of,
    version_name,
)
from controlplane.pricing.overrides import OwnPrice, names_of, read_own_prices

SOURCE = "api"
MAX_PRICES = 200
WHICH = (
    p.Param("provider", "As the price says it", "self-hosted"),
    p.Param("model", "As the price says it", "llama-3.1-8b"),
)


class OwnPricesIn(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Every price of one provider's model: they replace those that were kept of it."""

    prices: tuple[OwnPrice, ...]


class OwnPricesView(msgspec.Struct, frozen=True, kw_only=True):
    """The prices of a model, and whether the API may change them."""

    provider: str
    model: str
    prices: tuple[OwnPrice, ...]
    is_fixed: bool
    """They stand in the settings' file."""


class OwnPricesList(msgspec.Struct, frozen=True):
    """The body of `GET /api/v1/own-prices`; those of the file go before the API's."""

    rows: tuple[OwnPricesView, ...]
    price_book_version: str


class OwnPricesKept(msgspec.Struct, frozen=True):
    """What was kept, and the version of the price book that it is in."""

    prices: tuple[OwnPrice, ...]
    price_book_version: str


class OwnPriceController(Controller):
    """`/api/v1/own-prices`."""

    path = "/api/v1/own-prices"
    tags: Sequence[str] | None = ("prices",)

    @get("/", **needs(Scope.PRICES_READ, operator=True), sync_to_thread=True)
    def own_prices(self, services: Injected) -> OwnPricesList:
        """List the organisation's own prices by provider and model."""
        newest = services.price_history.latest()
        entries = services.price_history.entries(newest)
        kinds = ((EntryKind.OWN, False), (EntryKind.FILE_OWN, True))
        return OwnPricesList(
            tuple(
                OwnPricesView(
                    provider=prices[0].provider,
                    model=prices[0].model,
                    prices=prices,
                    is_fixed=fixed,
                )
                for kind, fixed in kinds
                for prices in own_prices_of(entries, kind).values()
            ),
            version_name(newest),
        )

    @put("/", **needs(Scope.PRICES_WRITE, 409, operator=True), sync_to_thread=True)
    def put_own_prices(
        self, request: ApiRequest, services: Injected, data: JSONBody[OwnPricesIn]
    ) -> OwnPricesKept:
        """Make or replace a model's own prices: a new version of the price book, the ones before stay.

        They price calls from now on, by their own start; a re-rate brings them to calls already
        priced, and to those that had no price.
        """
        key = _check(data.prices)
        body = msgspec.json.encode(data.prices, order="sorted").decode()
        version = _append(request, services, key, prices=data.prices, body=body)
        return OwnPricesKept(data.prices, version)

    @delete(
        "/",
        **needs(Scope.PRICES_WRITE, 404, 409, operator=True),
        sync_to_thread=True,
        operation_class=documented(WHICH),
    )
    def remove(self, request: ApiRequest, services: Injected) -> None:
        """End a model's own prices from the next call on; calls that they priced keep their price."""
        given = p.read(request.query_params.multi_items(), params=WHICH)
        for param in WHICH:
            if not p.one(given, param.name):
                raise InvalidInputError(
                    param.name, "missing", f"As in {param.name}={param.example}"
                )
        key = f"{p.one(given, 'provider')}/{p.one(given, 'model')}"
        _append(request, services, key, prices=(), body=None)


def _check(prices: Sequence[OwnPrice]) -> str:
    """Pass prices of one model and return its key."""
    if not 0 < len(prices) <= MAX_PRICES:
        raise InvalidInputError("prices", f"not 1 to {MAX_PRICES} of them")
    keys = {f"{one.provider}/{one.model}" for one in prices}
    if len(keys) > 1 or not prices[0].provider or not prices[0].model:
        raise InvalidInputError(
            "prices", "not of one provider's model", "Send each model by itself"
        )
    try:
        read_own_prices(msgspec.to_builtins(prices))
    except ConfigError as wrong:
        raise InvalidInputError(wrong.key, wrong.problem, wrong.fix) from None
    return keys.pop()


def _append(
    request: ApiRequest,
    services: Services,
    key: str,
    *,
    prices: Sequence[OwnPrice],
    body: str | None,
) -> str:
    known = services.price_history.entries(services.price_history.latest())
    kept = own_prices_of(known, EntryKind.OWN)
    fixed = own_prices_of(known, EntryKind.FILE_OWN)
    if key in fixed:
        raise ConflictError(
            f"{key!r} stands in the file that `price_overrides` names. Change it there"
        )
    if body is None and key not in kept:
        raise NotFoundError("own price", key)
    for other, others in {**kept, **fixed}.items():
        if other != key and (shared := names_of(prices) & names_of(others)):
            name = "/".join(min(shared))
            raise ConflictError(f"{name!r} is a name of {other!r} already. Change or remove that")
    return append_next(
        services.price_history,
        [PriceEntry(EntryKind.OWN, key, body)],
        source=SOURCE,
        note=f"own prices of {key} {'kept' if body else 'removed'}",
        by=request.user.id,
        now=services.clock.now(),
    )
