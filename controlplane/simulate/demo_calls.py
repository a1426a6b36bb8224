"""Draws the demonstration's calls, hour by hour, from a seed."""

import math
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

import numpy as np

from controlplane.simulate.demo_world import INCIDENTS, MODELS, TEAMS, Mix, Model, Team

HOUR: Final = timedelta(hours=1)
LIVE_SHRINK: Final = 40
"""Live calls come more often than those of the history, so their inputs are small.

Answers keep their length: short ones would be a drift, and the demonstration would alert to it.
"""
_DAYTIME_SWING: Final = 0.85  # nights are quiet, not silent
_GROWTH_PER_DAY: Final = 0.004
_RATE_LIMITED: Final = 0.012
_FAILED: Final = 0.004
_SATURDAY: Final = 5


class Call(NamedTuple):
    """One model call as it happened; how it is reported is `demo_spans`' matter.

    `input_tokens` includes `cached_tokens`, `output_tokens` includes `reasoning_tokens`;
    `http_status` other than 200 means no usage.
    """

    team: Team
    model: Model
    feature: str
    user: str
    shape: str
    start: datetime
    duration_seconds: float
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    reasoning_tokens: int
    is_stream: bool
    http_status: int
    nonce: int


def customer_of(call: Call) -> str | None:
    """Answer whom a call's user works for."""
    customers = call.team.customers
    return customers[int(call.user.rpartition("-")[2]) % len(customers)] if customers else None


def model_calls(call: Call) -> int:
    """Answer how many calls of a model it is: an agent asks twice."""
    return 2 if call.shape == "agent" else 1


def draw_hour(hour_start: datetime, *, seed: int, newest: datetime) -> list[Call]:
    """Draw every call that starts in the hour and has ended by `newest`.

    The same arguments give the same calls; an hour does not depend on another.
    """
    calls: list[Call] = []
    for index, team in enumerate(TEAMS):
        hour = int(hour_start.timestamp()) // 3600
        rng = np.random.default_rng((seed, hour, index))
        calls += _draw_team(team, hour_start, newest=newest, rng=rng)
    return [call for call in calls if call.start + _seconds(call.duration_seconds) <= newest]


def draw_one(now: datetime, *, rng: np.random.Generator) -> Call:
    """Draw a single call of a team chosen by its volume; for live traffic."""
    volumes = np.array([team.calls_per_day for team in TEAMS], dtype=float)
    team = TEAMS[int(rng.choice(len(TEAMS), p=volumes / volumes.sum()))]
    call = _draw_calls(team, now, offsets=np.zeros(1), input_factor=1.0, rng=rng)[0]
    return call._replace(
        input_tokens=call.input_tokens // LIVE_SHRINK + 1,
        cached_tokens=call.cached_tokens // LIVE_SHRINK,
    )


def _draw_team(
    team: Team, hour_start: datetime, *, newest: datetime, rng: np.random.Generator
) -> list[Call]:
    age_hours = (newest - hour_start) / HOUR
    incident = next(
        (
            i
            for i in INCIDENTS
            if i.team == team.name and i.to_hours_ago < age_hours <= i.from_hours_ago
        ),
        None,
    )
    if team.since_hours is not None and age_hours > team.since_hours:
        return []
    expected = _calls_expected(team, hour_start, age_hours=age_hours)
    count = int(rng.poisson(expected * (incident.calls_factor if incident else 1.0)))
    offsets = np.sort(rng.uniform(0, 3600, count))
    factor = incident.input_factor if incident else 1.0
    return _draw_calls(team, hour_start, offsets=offsets, input_factor=factor, rng=rng)


def _calls_expected(team: Team, hour_start: datetime, *, age_hours: float) -> float:
    angle = (hour_start.hour - team.peak_hour_utc) * math.tau / 24
    daytime = 1 + _DAYTIME_SWING * math.cos(angle)
    weekend = team.weekend_share if hour_start.weekday() >= _SATURDAY else 1.0
    growth = 1 - _GROWTH_PER_DAY * age_hours / 24
    return team.calls_per_day / 24 * daytime * weekend * growth


def _draw_calls(
    team: Team,
    start: datetime,
    *,
    offsets: "np.ndarray[tuple[int], np.dtype[np.float64]]",
    input_factor: float,
    rng: np.random.Generator,
) -> list[Call]:
    count = len(offsets)
    models = _draw_names(team.models, count, rng)
    features = _draw_names(team.features, count, rng)
    shapes = _draw_names(team.shapes, count, rng)
    # A power law: a few people do most of the asking.
    users = (team.users * rng.power(0.4, count)).astype(int).tolist()
    inputs = (rng.lognormal(math.log(team.input_tokens * input_factor), 0.6, count)).astype(int)
    outputs = (rng.lognormal(math.log(team.output_tokens), 0.7, count)).astype(int) + 1
    cached = (inputs * team.cached_ratio * rng.uniform(0.5, 1.5, count)).astype(int) // 128 * 128
    reasoning = (outputs * rng.uniform(0, 0.5, count)).astype(int)
    waits = rng.lognormal(math.log(0.4), 0.5, count).tolist()
    streams = (rng.random(count) < 0.4).tolist()  # noqa: PLR2004 - four calls in ten stream
    luck = rng.random(count).tolist()
    nonces = rng.integers(1, 2**62, count).tolist()
    rows = zip(
        models, features, users, shapes, offsets.tolist(), waits, inputs.tolist(),
        cached.tolist(), outputs.tolist(), reasoning.tolist(), streams, luck, nonces,
        strict=True,
    )  # fmt: skip
    return [_call(team, start, row) for row in rows]


_Row = tuple[str, str, int, str, float, float, int, int, int, int, bool, float, int]


def _call(team: Team, start: datetime, row: _Row) -> Call:
    name, feature, user, shape, offset, wait, tokens_in, cached, tokens_out, thought, *rest = row
    is_stream, luck, nonce = rest
    model = MODELS[name]
    status = 429 if luck < _RATE_LIMITED else 503 if luck < _RATE_LIMITED + _FAILED else 200
    answered = status == 200  # noqa: PLR2004 - HTTP OK
    return Call(
        team=team,
        model=model,
        feature=feature,
        user=f"{team.name}-user-{user:03d}",
        shape=shape,
        start=start + _seconds(offset),
        duration_seconds=wait + (tokens_out / model.tokens_per_second if answered else 0.0),
        input_tokens=tokens_in,
        cached_tokens=min(cached, tokens_in),
        output_tokens=tokens_out,
        reasoning_tokens=thought if name.startswith("gpt-5") else 0,
        is_stream=bool(is_stream),
        http_status=status,
        nonce=int(nonce),
    )


def _draw_names(mix: Mix, count: int, rng: np.random.Generator) -> list[str]:
    return [mix.names[i] for i in rng.choice(len(mix.names), size=count, p=mix.shares).tolist()]


def _seconds(value: float) -> timedelta:
    return timedelta(microseconds=round(value * 1e6))


def hours_back(newest: datetime, days: int) -> list[list[datetime]]:
    """List the hours of `days` days before `newest`, newest day first, newest hour first."""
    top = newest.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    hours = [top - HOUR * i for i in range(days * 24)]
    return [hours[i : i + 24] for i in range(0, len(hours), 24)]
