"""The rules that would make real what was tried on recorded calls; a person reads and applies them."""

import re
from collections.abc import Mapping, Sequence
from typing import Final

from controlplane.policy.document import SELECTOR_KEYS

_NO_ID: Final = re.compile(r"[^A-Za-z0-9._-]+")


def switch_draft(
    provider: str, model: str, match: Mapping[str, Sequence[str | None]]
) -> dict[str, object] | None:
    """Draft a switch of all matching requests to a model, as `read_rules` takes it.

    The rule is in shadow: it says what it would do, and does nothing until that is taken away.
    None where the calls can not be selected: by what no request says, or by not having a value.
    """
    if any(name not in SELECTOR_KEYS or None in values for name, values in match.items()):
        return None
    name = _NO_ID.sub("-", model).strip("-")
    rule: dict[str, object] = {"action": "downgrade", "id": f"switch-to-{name}", "shadow": True}
    if match:
        rule["match"] = {key: list(values) for key, values in match.items()}
    return {
        "deployments": {name: {"provider": provider, "model": model}},
        "rules": [{**rule, "to": name}],
    }
