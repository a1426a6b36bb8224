"""What was agreed with providers, and how much of what was promised is used."""

from collections.abc import Sequence
from datetime import datetime

import msgspec
from litestar import Controller, delete, get, put
from litestar.params import FromPath, JSONBody

from controlplane.api import params as p
from controlplane.api.describe import documented
from controlplane.api.guards import ApiRequest, Injected, needs
from controlplane.api.services import Services
from controlplane.auth.roles import Scope
from controlplane.core.errors import ConflictError, InvalidInputError, NotFoundError
from controlplane.core.money import divide_half_even, format_usd
from controlplane.pipelines.commitments import drawdowns
from controlplane.pricing.commitments import Drawdown
from controlplane.pricing.contracts import Contract, check_contract
from controlplane.pricing.history import (
    EntryKind,
    PriceEntry,
    append_next,
    contracts_of,
    version_name,
)

SOURCE = "api"
_TEN_THOUSAND = 10_000


class ContractView(msgspec.Struct, frozen=True, kw_only=True):
    """A contract, and whether the API may change it."""

    contract: Contract
    is_fixed: bool
    """It stands in the settings' file."""


class ContractList(msgspec.Struct, frozen=True):
    """The body of `GET /api/v1/contracts`: in the order they apply, the last one first in rank."""

    rows: tuple[ContractView, ...]
    price_book_version: str


class ContractKept(msgspec.Struct, frozen=True):
    """A contract, and the version of the price book that it is in."""

    contract: Contract
    price_book_version: str


class CommitmentView(msgspec.Struct, frozen=True, kw_only=True):
    """One period of a commitment.

    `contracted_usd` is what calls used at the contract's rates; `effective_usd` is what that usage
    costs after all: no less than the commitment once the period is over.
    """

    contract: str
    provider: str
    models: str
    holder: str
    start: datetime
    end: datetime
    is_closed: bool
    committed_usd: str
    contracted_usd: str
    effective_usd: str
    drawn_usd: str
    remaining_usd: str
    shortfall_usd: str
    overage_usd: str
    calls: int
    drawn_ratio: float
    elapsed_ratio: float
    ran_out_at: datetime | None


class CommitmentList(msgspec.Struct, frozen=True):
    """The body of `GET /api/v1/contracts/commitments`."""

    rows: tuple[CommitmentView, ...]
    currency: str = "USD"


class ContractController(Controller):
    """`/api/v1/contracts`."""

    path = "/api/v1/contracts"
    tags: Sequence[str] | None = ("prices",)

    @get("/", **needs(Scope.PRICES_READ, operator=True), sync_to_thread=True)
    def contracts(self, services: Injected) -> ContractList:
        """List contracts in the order they apply: of several for a model the last one does."""
        newest = services.price_history.latest()
        entries = services.price_history.entries(newest)
        kinds = ((EntryKind.CONTRACT, False), (EntryKind.FILE_CONTRACT, True))
        return ContractList(
            tuple(
                ContractView(contract=one, is_fixed=fixed)
                for kind, fixed in kinds
                for one in contracts_of(entries, kind)
            ),
            version_name(newest),
        )

    @put("/{contract_id:str}", **needs(Scope.PRICES_WRITE, 409, operator=True), sync_to_thread=True)
    def put_contract(
        self,
        request: ApiRequest,
        services: Injected,
        *,
        contract_id: FromPath[str],
        data: JSONBody[Contract],
    ) -> ContractKept:
        """Make or replace a contract: a new version of the price book, the ones before stay.

        It prices calls from now on, by their own start; a re-rate brings it to calls already priced.
        """
        if data.id != contract_id:
            raise InvalidInputError("id", "is not the id in the path", f"Write {contract_id!r}")
        check_contract(data)
        body = msgspec.json.encode(data, order="sorted").decode()
        version = _append(request, services, contract_id, body=body)
        return ContractKept(data, version)

    @delete(
        "/{contract_id:str}",
        **needs(Scope.PRICES_WRITE, 404, 409, operator=True),
        sync_to_thread=True,
    )
    def remove(self, request: ApiRequest, services: Injected, contract_id: FromPath[str]) -> None:
        """End a contract from the next call on; calls that it priced keep their price."""
        _append(request, services, contract_id, body=None)

    @get(
        "/commitments",
        **needs(Scope.COSTS_READ, operator=True),
        sync_to_thread=True,
        operation_class=documented((p.START, p.END, p.RANGE, p.ZONE)),
    )
    def commitments(self, request: ApiRequest, services: Injected) -> CommitmentList:
        """Answer the periods of every commitment that overlap a window, over all tenants' calls."""
        params = (p.START, p.END, p.RANGE, p.ZONE)
        given = p.read(request.query_params.multi_items(), params=params)
        now = services.clock.now()
        window = p.window(
            given, now=now, in_zone=p.zone(given, services.zone), calendar=services.calendar
        )
        found = drawdowns(services.reader, services.prices.current().contracts, window)
        return CommitmentList(tuple(_view(one, now) for one in found))


def _append(request: ApiRequest, services: Services, contract_id: str, *, body: str | None) -> str:
    known = services.price_history.entries(services.price_history.latest())
    if any(one.id == contract_id for one in contracts_of(known, EntryKind.FILE_CONTRACT)):
        raise ConflictError(
            f"{contract_id!r} stands in the file that `contracts` names. Change it there"
        )
    if body is None and not any(
        one.id == contract_id for one in contracts_of(known, EntryKind.CONTRACT)
    ):
        raise NotFoundError("contract", contract_id)
    return append_next(
        services.price_history,
        [PriceEntry(EntryKind.CONTRACT, contract_id, body)],
        source=SOURCE,
        note=f"contract {contract_id} {'kept' if body else 'removed'}",
        by=request.user.id,
        now=services.clock.now(),
    )


def _view(one: Drawdown, now: datetime) -> CommitmentView:
    closed = one.is_closed(now)
    whole = one.period.end - one.period.start
    elapsed = min(max((now - one.period.start) / whole, 0.0), 1.0)
    effective = max(one.used_nusd, one.amount_nusd) if closed else one.used_nusd
    return CommitmentView(
        contract=one.contract.id,
        provider=one.contract.provider,
        models=one.contract.models,
        holder=one.contract.holder,
        start=one.period.start,
        end=one.period.end,
        is_closed=closed,
        committed_usd=format_usd(one.amount_nusd),
        contracted_usd=format_usd(one.used_nusd),
        effective_usd=format_usd(effective),
        drawn_usd=format_usd(one.drawn_nusd),
        remaining_usd=format_usd(0 if closed else one.left_nusd),
        shortfall_usd=format_usd(one.left_nusd if closed else 0),
        overage_usd=format_usd(one.overage_nusd),
        calls=one.calls,
        drawn_ratio=divide_half_even(one.drawn_nusd * _TEN_THOUSAND, one.amount_nusd)
        / _TEN_THOUSAND,
        elapsed_ratio=round(elapsed, 4),
        ran_out_at=one.boundary.start if one.boundary else None,
    )
