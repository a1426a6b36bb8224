"""Files of a proposal → the API's replay → a report with numbers as numbers."""

from pathlib import Path
from typing import Any

import msgspec
import yaml

from controlplane.bootstrap.policy_files import check_files
from controlplane.bootstrap.remote import RemoteApi
from controlplane.core.errors import InvalidInputError, PolicyError


class ReplayFiles(msgspec.Struct, frozen=True, kw_only=True):
    """What to try."""

    policy: Path | None = None
    budget: Path | None = None
    prices: Path | None = None


def run(
    api: RemoteApi,
    files: ReplayFiles,
    *,
    start: str,
    end: str,
    tenants: tuple[str, ...],
    limit: int,
) -> Any:
    """Replay and return the report, `*_nusd` as integers.

    Raises:
        InvalidInputError: no file, or one that is not what it should be.
        PolicyError: rules that do not compile; names file and line.
    """
    if files == ReplayFiles():
        raise InvalidInputError("--policy", "and --budget and --prices are all absent", "Give one")
    order: dict[str, object] = {"start": start, "end": end, "tenants": tenants, "limit": limit}
    authored = None
    if files.policy:
        sources, problems = check_files([files.policy])
        if problems:
            raise InvalidInputError(str(files.policy), problems[0].sentence())
        authored = sources[0].authored
        order["rules"] = authored.rules
    if files.budget:
        order["budgets"] = _listed(files.budget)
    if files.prices:
        order["prices"] = _listed(files.prices)
    try:
        return _money_as_numbers(api.post("/replay", order))
    except PolicyError as wrong:
        if authored is None:
            raise
        raise authored.located(wrong) from None


def _listed(path: Path) -> list[object]:
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as wrong:
        raise InvalidInputError(str(path), f"can not be read: {wrong}") from None
    if isinstance(tree, dict):
        return [tree]
    if not isinstance(tree, list):
        raise InvalidInputError(str(path), "is no list", "Write `- key: value` items")
    return tree


def _money_as_numbers(tree: Any) -> Any:
    """Write `*_nusd` as integers, as every command does; an answer stays one."""
    if isinstance(tree, list):
        return [_money_as_numbers(each) for each in tree]
    if isinstance(tree, dict):
        for key, value in tree.items():
            is_money = key.endswith("_nusd") and isinstance(value, str)
            tree[key] = int(value) if is_money else _money_as_numbers(value)
    return tree
