"""What people did to a budget: the whole of it before and after, so that nothing has to be guessed."""

from datetime import datetime

import msgspec

from controlplane.budgets.budget import Budget


class Editor(msgspec.Struct, frozen=True, kw_only=True):
    """Who, and when."""

    at: datetime
    name: str
    id: str


class Edit(msgspec.Struct, frozen=True, kw_only=True):
    """One edit; `before` is None where the budget was made."""

    by: Editor
    before: Budget | None
    after: Budget

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of what changed, in the order of the fields; all of none that was made."""
        if self.before is None:
            return ()
        names = self.after.__struct_fields__
        return tuple(
            name for name in names if getattr(self.before, name) != getattr(self.after, name)
        )
