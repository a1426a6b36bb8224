"""Where budgets and their ledger are kept."""

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Protocol

from controlplane.budgets.budget import Budget
from controlplane.budgets.edit import Edit, Editor
from controlplane.budgets.hold import HoldLine, SettledHold
from controlplane.budgets.lease import Lease
from controlplane.budgets.ledger import Amounts, Entry, WindowKey
from controlplane.budgets.posting import WaitingCall
from controlplane.core.calendar import Window
from controlplane.policy.history import NodeReport
from controlplane.policy.wire import Generation, RefusedCalls


class LedgerTransaction(Protocol):
    """One serialised transaction on the ledger: nobody else writes it meanwhile.

    Everything read is as of its start plus its own writes; all is durable when it ends without an
    exception, and nothing otherwise.
    """

    def budgets(self, ids: Collection[str] | None = None) -> dict[str, Budget]:
        """Return budgets that are not archived, of these ids or all."""
        ...

    def amounts(self, windows: Collection[WindowKey]) -> dict[WindowKey, Amounts]:
        """Return what stands in each window's accounts; a window without entries is absent."""
        ...

    def frozen_until(self, now: datetime, *, for_seconds: float) -> datetime | None:
        """Return until when nothing is granted; None: the ledger is in order.

        A ledger that finds itself on another timeline is frozen from now on for so long (L6).
        """
        ...

    def amounts_between(self, budget_id: str, start: datetime, end: datetime) -> Amounts:
        """Return the sum over a budget's windows that start in `[start, end)`."""
        ...

    def append(self, entries: Sequence[Entry]) -> None:
        """Post entries and carry the balances forward.

        Raises:
            ConflictError: a key is in its window already; the transaction must end.
        """
        ...

    def leases(self, ids: Collection[str]) -> list[Lease]:
        """Return the leases of these ids that exist."""
        ...

    def leases_in_hand(self, holder: str) -> list[Lease]:
        """Return what a holder was granted, has not given back, and has something open of."""
        ...

    def owners(self, holders: Collection[str]) -> dict[str, str]:
        """Return, of the holders that were heard of, the id of the key that each is of."""
        ...

    def advance(self, holder: str, seq: int, *, key_id: str, now: datetime) -> bool:
        """Note how far a holder's requests have come; False when this one is not its newest.

        The first makes it the key's; another key's word is never its newest.
        """
        ...

    def overdue_leases(self, now: datetime, *, limit: int) -> list[Lease]:
        """Return leases whose sweep is due and whose open money counts as leased, oldest first."""
        ...

    def save_leases(self, leases: Sequence[Lease]) -> None:
        """Write leases as they are now."""
        ...

    def holders(
        self, windows: Collection[WindowKey], *, now: datetime, other_than: str
    ) -> dict[WindowKey, int]:
        """Return how many other holders have a lease or open calls in each window."""
        ...

    def leased_budgets(self, *, since: datetime) -> set[str]:
        """Return the budgets that a lease was granted from since then."""
        ...

    def known_holds(self, ids: Collection[str]) -> set[str]:
        """Return which of these holds are settled already."""
        ...

    def save_holds(self, holds: Sequence[SettledHold]) -> None:
        """Write holds that have just been settled."""
        ...

    def holds_of_calls(
        self, response_ids: Collection[str], call_ids: Collection[str]
    ) -> list[SettledHold]:
        """Return the settled holds that carry one of these ids; a call id may be a hold's own."""
        ...

    def save_lines(self, lines: Sequence[tuple[str, HoldLine]]) -> None:
        """Write (hold id, line) as corrected."""
        ...

    def posted(self, versions: Collection[int]) -> set[int]:
        """Return which of these settlement versions the ledger has."""
        ...

    def save_posted(self, versions: Collection[int], *, now: datetime) -> None:
        """Note that the ledger has these settlement versions."""
        ...

    def waiting(self, call_ids: Collection[str]) -> list[WaitingCall]:
        """Return the calls of these ids that wait for an agent's settle."""
        ...

    def overdue_calls(self, now: datetime, *, limit: int) -> list[WaitingCall]:
        """Return calls that have waited long enough, oldest first."""
        ...

    def save_waiting(self, calls: Sequence[WaitingCall]) -> None:
        """Keep calls that wait."""
        ...

    def drop_waiting(self, calls: Sequence[WaitingCall]) -> None:
        """Forget calls that were posted or turned out to be enforced."""
        ...

    def see_node(self, report: NodeReport, *, now: datetime) -> None:
        """Note that a node was heard of, and what it applied or refused."""
        ...

    def count_refused(self, counts: Sequence[RefusedCalls], *, holder: str) -> None:
        """Keep the highest count that a holder told of each hour and reason."""
        ...

    def generation(self, scope: str) -> Generation:
        """Return the newest generation of a scope; (0, 0) when it has none."""
        ...


class Ledger(Protocol):
    """Opens transactions."""

    def transaction(self) -> AbstractContextManager[LedgerTransaction]:
        """Begin one; waits for the one before it.

        Raises:
            UnavailableError: the database can not be written now; nothing was changed.
        """
        ...


class Budgets(Protocol):
    """Budgets as people manage them."""

    def create(self, budget: Budget, *, by: Editor | None = None) -> Budget:
        """Keep a new budget, and who made it.

        Raises:
            InvalidInputError: it can not be kept.
            ConflictError: there is one of that id.
        """
        ...

    def get(self, budget_id: str) -> Budget:
        """Return a budget.

        Raises:
            NotFoundError: there is none of that id.
        """
        ...

    def active(self, *, tenants: Collection[str] | None = None) -> list[Budget]:
        """Return the budgets that are not archived, of these tenants or all, by id."""
        ...

    def update(self, budget: Budget, *, by: Editor | None = None) -> Budget:
        """Replace what may change of a budget.

        Raises:
            NotFoundError: there is none of that id.
            InvalidInputError: it changes what the budget counts.
        """
        ...

    def archive(self, budget_id: str, *, now: datetime, by: Editor | None = None) -> None:
        """Stop a budget; its ledger stays.

        Raises:
            NotFoundError: there is none of that id.
        """
        ...

    def balances(self, budgets: Sequence[Budget], *, at: datetime) -> Mapping[str, Amounts]:
        """Return by budget id what counts at `at`; zero amounts when nothing does."""
        ...

    def recovering_until(self, now: datetime) -> datetime | None:
        """Return until when nothing is granted after a restore; None: the ledger is in order."""
        ...

    def entries(self, budget_id: str, span: Window, *, limit: int) -> list[Entry]:
        """Return entries of a budget's windows that start in `span`, newest first."""
        ...

    def edits(self, budget_id: str, *, limit: int) -> list[Edit]:
        """Return what people did to a budget, newest first."""
        ...
