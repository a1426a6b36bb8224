"""Policy files against a running API: what would change, and change it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from controlplane.bootstrap.remote import RemoteApi
from controlplane.core.errors import InvalidInputError, PolicyError
from controlplane.pipelines.authoring import Authored, read_text


class FileProblem(msgspec.Struct, frozen=True, kw_only=True):
    """Why a file is refused, as compilers say it."""

    file: str
    line: int | None
    field: str
    problem: str
    fix: str

    def sentence(self) -> str:
        """Say it in one line that editors can jump to."""
        where = f"{self.file}:{self.line}" if self.line else self.file
        return f"{where}: {self.field}: {self.problem}" + (f". {self.fix}" if self.fix else "")


class PlannedFile(msgspec.Struct, frozen=True, kw_only=True):
    """One file and what applying it would do; `plan` is the API's answer, None when refused."""

    file: str
    scope: str | None
    plan: dict[str, Any] | None
    problem: FileProblem | None = None

    @property
    def has_changes(self) -> bool:
        """Whether applying would publish something."""
        return self.plan is not None and bool(self.plan["has_changes"])


class AppliedFile(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a file: a generation, a proposal, or nothing."""

    file: str
    scope: str
    result: str  # published | proposed | unchanged
    generation: str | None = None
    proposal: str | None = None


class Source(msgspec.Struct, frozen=True):
    """A file as it was read."""

    path: Path
    text: str
    authored: Authored


def check_files(paths: Sequence[Path]) -> tuple[list[Source], list[FileProblem]]:
    """Read files without a server; one scope may be in one file only.

    Raises:
        InvalidInputError: a file can not be read.
    """
    sources: list[Source] = []
    problems: list[FileProblem] = []
    for path in paths:
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as wrong:
            raise InvalidInputError(str(path), f"can not be read: {wrong}") from None
        try:
            source = Source(path, text, read_text(text))
        except PolicyError as wrong:
            problems.append(_problem(path, wrong))
            continue
        scope = source.authored.rules.scope
        twin = next((each for each in sources if each.authored.rules.scope == scope), None)
        if twin is not None:
            again = PolicyError(
                "scope", f"{scope!r} is in {twin.path} too", "Keep one file a scope"
            )
            problems.append(_problem(path, source.authored.located(again)))
            continue
        sources.append(source)
    return sources, problems


def plan_files(api: RemoteApi, paths: Sequence[Path]) -> list[PlannedFile]:
    """Ask what each file would change; a refused one carries its problem."""
    sources, problems = check_files(paths)
    planned = [
        PlannedFile(file=each.file, scope=None, plan=None, problem=each) for each in problems
    ]
    for source in sources:
        scope = source.authored.rules.scope
        try:
            answer = api.send_text("POST", "/policy/plan", source.text)
        except PolicyError as wrong:
            problem = _problem(source.path, wrong)
            planned.append(
                PlannedFile(file=str(source.path), scope=scope, plan=None, problem=problem)
            )
            continue
        planned.append(PlannedFile(file=str(source.path), scope=scope, plan=answer))
    return planned


def apply_files(
    api: RemoteApi,
    paths: Sequence[Path],
    planned: Sequence[PlannedFile],
    *,
    message: str,
    at_once: bool,
) -> list[AppliedFile]:
    """Publish, or propose, what has changes; call it when no file has a problem."""
    sources, _ = check_files(paths)
    plans = {each.file: each for each in planned}
    applied = []
    for source in sources:
        plan = plans[str(source.path)]
        scope = source.authored.rules.scope
        if not plan.has_changes or plan.plan is None:
            applied.append(AppliedFile(file=plan.file, scope=scope, result="unchanged"))
        elif plan.plan["needs_approval"]:
            made = api.send_text("POST", "/policy/proposals", source.text, message=message)
            applied.append(
                AppliedFile(file=plan.file, scope=scope, result="proposed", proposal=made["id"])
            )
        else:
            made = api.send_text(
                "PUT",
                "/policy/rules",
                source.text,
                scope=scope,
                message=message,
                rollout="at_once" if at_once else "staged",
            )
            generation = f"{made['epoch']}.{made['gen']}"
            applied.append(
                AppliedFile(file=plan.file, scope=scope, result="published", generation=generation)
            )
    return applied


def _problem(path: Path, wrong: PolicyError) -> FileProblem:
    return FileProblem(
        file=str(path), line=wrong.line, field=wrong.field, problem=wrong.problem, fix=wrong.fix
    )
