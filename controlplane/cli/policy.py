"""What proxies run: from files in git to the agents, and back."""

import enum
import sys
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlencode

import typer

from controlplane.cli.options import (
    Json,
    KeyFile,
    PolicyScope,
    Server,
    group,
    print_json,
    print_text,
)
from controlplane.cli.policy_keys import policy_keys_app
from controlplane.cli.policy_quotas import policy_quotas_app

app = typer.Typer()
policy_app = group("Policy files: plan, apply, history, roll-out, roll back.")
epoch_app = group("Epochs of policy generations.")
rollout_app = group("The staged roll-out of new rules.")
app.add_typer(policy_app, name="policy")
app.add_typer(epoch_app, name="epoch")
policy_app.add_typer(rollout_app, name="rollout")
policy_app.add_typer(policy_keys_app, name="keys")
policy_app.add_typer(policy_quotas_app, name="quotas")

CHANGES_PENDING = 3

Files = Annotated[list[Path], typer.Argument(help="YAML files of rules, one a scope.")]
Message = Annotated[str, typer.Option("--message", "-m", help="Why; kept with the generation.")]


@policy_app.command("schema")
def policy_schema() -> None:
    """Print the JSON Schema of policy files."""
    from controlplane.pipelines.authoring import json_schema

    print_json(json_schema())


@policy_app.command("check")
def policy_check(files: Files, *, json: Json = False) -> None:
    """Read files without a server: syntax, fields, types. Exit 1 when one is refused."""
    from controlplane.bootstrap.policy_files import check_files

    sources, problems = check_files(files)
    if json:
        print_json({"ok": not problems, "problems": problems})
    else:
        for source in sources:
            count = len(source.authored.rules.rules)
            print_text(f"{source.path}: {count} rule{'' if count == 1 else 's'}")
    for problem in problems:
        sys.stderr.write(f"{problem.sentence()}\n")
    if problems:
        raise typer.Exit(1)


@policy_app.command("plan")
def policy_plan(
    files: Files, *, server: Server = None, key_file: KeyFile = None, json: Json = False
) -> None:
    """Show what applying would change. Exit 0: nothing, 3: something, 1: a file is refused."""
    from controlplane.bootstrap.policy_files import plan_files
    from controlplane.bootstrap.remote import RemoteApi
    from controlplane.bootstrap.text import planned_policy

    with RemoteApi.from_environment(server=server, key_file=key_file) as api:
        planned = plan_files(api, files)
    has_changes = any(each.has_changes for each in planned)
    if json:
        print_json({"has_changes": has_changes, "files": planned})
    else:
        print_text(planned_policy(planned))
    _refuse_problems(planned)
    if has_changes:
        raise typer.Exit(CHANGES_PENDING)


@policy_app.command("apply")
def policy_apply(
    files: Files,
    *,
    message: Message = "",
    at_once: Annotated[bool, typer.Option("--at-once", help="Skip the stages.")] = False,
    server: Server = None,
    key_file: KeyFile = None,
    json: Json = False,
) -> None:
    """Publish files, or propose them where approval is required; all or none is refused."""
    from controlplane.bootstrap.policy_files import apply_files, plan_files
    from controlplane.bootstrap.remote import RemoteApi
    from controlplane.bootstrap.text import planned_policy

    with RemoteApi.from_environment(server=server, key_file=key_file) as api:
        planned = plan_files(api, files)
        _refuse_problems(planned)
        applied = apply_files(api, files, planned, message=message, at_once=at_once)
    if json:
        print_json({"files": applied})
        return
    print_text(planned_policy(planned))
    for each in applied:
        what = each.generation or each.proposal or ""
        print_text(f"{each.scope}: {each.result} {what}".rstrip())


@policy_app.command("history")
def policy_history(
    *,
    scope: PolicyScope = "default",
    limit: Annotated[int, typer.Option(min=1, max=500)] = 20,
    server: Server = None,
    key_file: KeyFile = None,
    json: Json = False,
) -> None:
    """List the generations of a scope: when, who, why."""
    found = _get("/policy/generations", (server, key_file), scope=scope, limit=str(limit))
    if json:
        print_json(found)
        return
    _say_none(found["rows"], f"No generation of {scope!r} is published.")
    for row in found["rows"]:
        who = row["author"] or "-"  # null as well for who may not see every tenant
        print_text(
            f"{row['epoch']}.{row['gen']}  {row['issued_at']}  {row['cause']:<8}  {who}  "
            f"{row['message'] or ''}".rstrip()
        )


@policy_app.command("diff")
def policy_diff(
    older: Annotated[str | None, typer.Argument(help="epoch.gen; default the one before.")] = None,
    newer: Annotated[str | None, typer.Argument(help="epoch.gen; default the newest.")] = None,
    *,
    scope: PolicyScope = "default",
    server: Server = None,
    key_file: KeyFile = None,
    json: Json = False,
) -> None:
    """Compare the rules of two generations."""
    asked = {"from": older, "to": newer}
    params = {name: value for name, value in asked.items() if value is not None}
    found = _get("/policy/diff", (server, key_file), scope=scope, **params)
    print_json(found) if json else print_text(found["diff"].rstrip() or "No difference.")


@policy_app.command("nodes")
def policy_nodes(
    *,
    scope: PolicyScope = "default",
    server: Server = None,
    key_file: KeyFile = None,
    json: Json = False,
) -> None:
    """List what each proxy says it runs."""
    found = _get("/policy/nodes", (server, key_file), scope=scope)
    if json:
        print_json(found)
        return
    _say_none(found["rows"], f"No node of {scope!r} has reported.")
    for row in found["rows"]:
        runs = f"{row['applied']['epoch']}.{row['applied']['gen']}" if row["applied"] else "-"
        print_text(f"{row['node']}  {row['state']}  {runs}  {row['reason'] or ''}".rstrip())


@policy_app.command("rollback")
def policy_rollback(
    to: Annotated[str, typer.Argument(help="epoch.gen whose rules to go back to.")],
    *,
    scope: PolicyScope = "default",
    message: Message = "",
    server: Server = None,
    key_file: KeyFile = None,
    json: Json = False,
) -> None:
    """Publish old rules as a new, higher generation, to all at once."""
    body = {"scope": scope, "to": to, "message": message}
    _published(_post("/policy/rollback", body, (server, key_file)), json=json)


@policy_app.command("approve")
def policy_approve(
    proposal: Annotated[str, typer.Argument(help="Id of the proposal.")],
    *,
    break_glass: Annotated[
        str, typer.Option(help="Why nobody else can be asked: publishes your own proposal, aloud.")
    ] = "",
    server: Server = None,
    key_file: KeyFile = None,
    json: Json = False,
) -> None:
    """Publish what somebody else has proposed."""
    asked = f"?{urlencode({'break_glass': break_glass})}" if break_glass else ""
    path = f"/policy/proposals/{proposal}/approve{asked}"
    _published(_post(path, {}, (server, key_file)), json=json)


@policy_app.command("proposals")
def policy_proposals(
    *,
    scope: PolicyScope = "default",
    server: Server = None,
    key_file: KeyFile = None,
    json: Json = False,
) -> None:
    """List what was proposed for a scope."""
    found = _get("/policy/proposals", (server, key_file), scope=scope)
    if json:
        print_json(found)
        return
    _say_none(found["rows"], f"Nothing is proposed for {scope!r}.")
    for row in found["rows"]:
        print_text(f"{row['id']}  {row['state']}  {row['author']}  {row['message']}".rstrip())


@rollout_app.command("show")
def rollout_show(
    *,
    scope: PolicyScope = "default",
    server: Server = None,
    key_file: KeyFile = None,
    json: Json = False,
) -> None:
    """Show the last roll-out of a scope."""
    found = _get("/policy/rollout", (server, key_file), scope=scope)
    if json:
        print_json(found)
        return
    print_text(
        f"{found['candidate']} over {found['stable']}: {found['state']}, stage {found['stage']}, "
        f"{len(found['nodes'])} nodes chosen. {found['reason'] or ''}".rstrip()
    )


@rollout_app.command("halt")
def rollout_halt(
    *,
    scope: PolicyScope = "default",
    message: Message = "",
    server: Server = None,
    key_file: KeyFile = None,
    json: Json = False,
) -> None:
    """End the roll-out by giving everybody the old rules again."""
    body = {"scope": scope, "message": message}
    _published(_post("/policy/rollout/halt", body, (server, key_file)), json=json)


@rollout_app.command("promote")
def rollout_promote(
    *,
    scope: PolicyScope = "default",
    message: Message = "",
    server: Server = None,
    key_file: KeyFile = None,
    json: Json = False,
) -> None:
    """End the roll-out by giving everybody the new rules now."""
    body = {"scope": scope, "message": message}
    ended = _post("/policy/rollout/promote", body, (server, key_file))
    print_json(ended) if json else print_text(f"{ended['candidate']}: {ended['state']}")


@epoch_app.command("bump")
def epoch_bump(
    *,
    scope: PolicyScope = "default",
    message: Message = "",
    server: Server = None,
    key_file: KeyFile = None,
    json: Json = False,
) -> None:
    """Begin an epoch above everything that proxies have applied: after a restored database."""
    body = {"scope": scope, "message": message}
    _published(_post("/policy/epoch", body, (server, key_file)), json=json)


def _get(path: str, at: tuple[str | None, Path | None], **params: str) -> Any:
    from controlplane.bootstrap.remote import RemoteApi

    with RemoteApi.from_environment(server=at[0], key_file=at[1]) as api:
        return api.get(path, **params)


def _post(path: str, body: object, at: tuple[str | None, Path | None]) -> Any:
    from controlplane.bootstrap.remote import RemoteApi

    with RemoteApi.from_environment(server=at[0], key_file=at[1]) as api:
        return api.post(path, body)


def _published(made: Any, *, json: bool) -> None:
    if json:
        print_json(made)
    else:
        print_text(f"{made['scope']}: published {made['epoch']}.{made['gen']}")


def _refuse_problems(planned: Any) -> None:
    problems = [each.problem for each in planned if each.problem is not None]
    for problem in problems:
        sys.stderr.write(f"{problem.sentence()}\n")
    if problems:
        raise typer.Exit(1)


class Front(enum.StrEnum):
    """What files are written for."""

    NGINX = "nginx"
    HAPROXY = "haproxy"


@policy_app.command("render")
def policy_render(
    front: Annotated[Front, typer.Option("--for", help="Which proxy.")],
    out: Annotated[Path, typer.Option("--out", help="Folder; files are replaced whole.")],
    *,
    upstream: Annotated[str, typer.Option(help="Where unrouted requests go.")] = "default",
    config: Annotated[Path | None, typer.Option("--config", help="The agent's TOML file.")] = None,
    json: Json = False,
) -> None:
    """Write the policy that this machine's agent last verified as files of a proxy."""
    from controlplane.agent.render import render_last_known_good
    from controlplane.agent.settings import load_agent_settings

    settings = load_agent_settings(config=config)
    answer = render_last_known_good(settings, front.value, out, upstream=upstream)
    if json:
        print_json(answer)
    else:
        print_text(f"Policy {answer['policy']}: {len(answer['changed'])} files changed in {out}")


def _say_none(rows: list[object], sentence: str) -> None:
    if not rows:
        print_text(sentence)
