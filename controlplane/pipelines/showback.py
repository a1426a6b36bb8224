"""A window's cost by owner → what is shared, divided by a rule each → rows that sum to what they summed to.

The rules are those of statements, and so are the totals: this is what a page shows before anybody
makes a statement of it.
"""

from collections.abc import Mapping
from typing import Final

import msgspec

from controlplane.core.calendar import Window
from controlplane.exports.sharing import (
    SharedRule,
    bearers,
    check_shares,
    divide,
    idle_weights_by,
    weights_by,
)
from controlplane.pipelines.gpu_cost import GpuTools
from controlplane.pipelines.gpu_idle import idle_lines, pool_users
from controlplane.signals.ports import SpanReader
from controlplane.signals.queries import CostQuery

OWNER: Final = "owner"
OWNERLESS: Final = "unattributed"
IDLE: Final = "idle"


class ShowbackQuestion(msgspec.Struct, frozen=True, kw_only=True):
    """Whose cost by which dimension, and by which rules what nobody owns is divided."""

    tenants: tuple[str, ...]
    everyone: bool
    """Whoever asks sees all tenants: also the idle time that nobody bears."""
    window: Window
    by: str
    shared_rule: SharedRule = SharedRule.NONE
    shares: Mapping[str, int] = msgspec.field(default_factory=dict)
    idle_rule: SharedRule = SharedRule.NONE
    idle_shares: Mapping[str, int] = msgspec.field(default_factory=dict)


class ShowbackRow(msgspec.Struct, frozen=True, kw_only=True):
    """An owner, what has none, or a pool's idle time: what it cost, and what it is shown."""

    kind: str
    name: str | None
    own_nusd: int
    shared_nusd: int = 0
    """Of the cost without an owner: a part, or its way out."""
    idle_nusd: int = 0
    """Of idle GPU time, the same."""
    unpriced_calls: int = 0

    @property
    def total_nusd(self) -> int:
        """Return what it comes to."""
        return self.own_nusd + self.shared_nusd + self.idle_nusd


def showback(reader: SpanReader, gpu: GpuTools, asked: ShowbackQuestion) -> list[ShowbackRow]:
    """Divide what nobody owns; owners by name, then what has no owner, then idle time by pool.

    Raises:
        InvalidInputError: weights that do not go with their rule, or an unknown dimension.
    """
    check_shares(asked.shared_rule, asked.shares)
    check_shares(asked.idle_rule, asked.idle_shares, name="idle_shares")
    query = CostQuery(tenants=asked.tenants, window=asked.window, group_by=(asked.by,))
    found = {row[asked.by]: row for row in reader.costs(query).to_pylist()}
    own = {owner: row["cost_nusd"] or 0 for owner, row in found.items() if owner is not None}
    ownerless = found[None]["cost_nusd"] or 0 if None in found else 0
    bearing = bearers(own, {owner for owner, row in found.items() if row["unpriced_calls"]})
    by_rule = weights_by(asked.shared_rule, bearing, asked.shares)
    shared = divide(ownerless, by_rule if ownerless else {})
    idle = _idle(reader, gpu, asked, own=bearing)
    borne: dict[str | None, int] = {}
    for _, parts in idle.values():
        for owner, part in parts.items():
            borne[owner] = borne.get(owner, 0) + part
    names = sorted({*own, *(name for name in (*shared, *borne) if name is not None)})
    rows = [
        ShowbackRow(
            kind=OWNER,
            name=name,
            own_nusd=own.get(name, 0),
            shared_nusd=shared.get(name, 0),
            idle_nusd=borne.get(name, 0),
            unpriced_calls=found[name]["unpriced_calls"] if name in found else 0,
        )
        for name in names
    ]
    if None in found:
        rows.append(
            ShowbackRow(
                kind=OWNERLESS,
                name=None,
                own_nusd=ownerless,
                shared_nusd=shared.get(None, 0),
                unpriced_calls=found[None]["unpriced_calls"],
            )
        )
    return rows + [
        ShowbackRow(kind=IDLE, name=name, own_nusd=cost, idle_nusd=parts.get(None, 0))
        for name, (cost, parts) in idle.items()
    ]


def _idle(
    reader: SpanReader, gpu: GpuTools, asked: ShowbackQuestion, *, own: Mapping[str, int]
) -> dict[str, tuple[int, dict[str | None, int]]]:
    """Return by pool and slice what its idle time cost, and each owner's part of that."""
    sums: dict[tuple[str, str], int] = {}
    for line in idle_lines(gpu, asked.tenants, asked.window, everyone=asked.everyone):
        of = (line.pool, line.slice)
        sums[of] = sums.get(of, 0) + line.cost_nusd
    if not sums:
        return {}
    query = CostQuery(tenants=asked.tenants, window=asked.window)
    users = pool_users(reader, query, by=asked.by)
    divided = {}
    for of, cost in sorted(sums.items()):
        weights = idle_weights_by(
            asked.idle_rule, own, asked.idle_shares, users=users.get(of[0], {})
        )
        divided["/".join(filter(None, of))] = (cost, divide(cost, weights if cost else {}))
    return divided
