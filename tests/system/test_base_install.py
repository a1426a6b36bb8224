"""The base install is the agent: small, and without what only the server needs."""

import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MOST_BYTES = 30 * 10**6
ADDED_BY_VENV = ("pip", "setuptools", "_distutils_hack", "pkg_resources", "distutils")
SERVER_ONLY = (
    "numpy",
    "polars",
    "duckdb",
    "pyarrow",
    "grpc",
    "google",
    "litestar",
    "yaml",
    "typer",
)
NO_INDEX = ("No matching distribution", "connection", "Temporary failure", "ReadTimeout")
AGENT = """
import sys
from controlplane.agent import asgi, governed, httpx_transport, main, node_server, render
found = sorted(set({names}) & set(sys.modules))
sys.exit(f"imported {{found}}" if found else 0)
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a new environment with the wheel of this tree in it."""
    folder = tmp_path_factory.mktemp("base")
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"]
    _run([*build, "-w", str(folder), str(ROOT)])
    (wheel,) = folder.glob("*.whl")
    venv.create(folder / "venv", with_pip=True)
    made = folder / "venv" / "bin" / "python"
    install = [str(made), "-m", "pip", "install", "-q", "--no-compile", "--retries", "1"]
    done = subprocess.run([*install, str(wheel)], capture_output=True, text=True, check=False)
    if done.returncode and any(why in done.stderr for why in NO_INDEX):
        pytest.skip("no package index, and what the agent needs is not in pip's cache")
    assert 0 == done.returncode, done.stderr[-2_000:]
    return made


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=True)


def test_it_is_small(python: Path) -> None:
    """Less than 30 MB beside the interpreter, what it depends on included."""
    (packages,) = python.parents[1].glob("lib/python*/site-packages")
    theirs = [one for one in packages.iterdir() if not one.name.startswith(ADDED_BY_VENV)]
    files = [file for one in theirs for file in (one, *one.rglob("*")) if file.is_file()]
    size = sum(file.stat().st_size for file in files)
    sys.stderr.write(f"base install: {size / 1e6:.1f} MB in {len(files)} files\n")
    assert size < MOST_BYTES


def test_every_front_imports_without_the_server(python: Path) -> None:
    """And so does the command."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    script = AGENT.format(names=SERVER_ONLY)
    for arguments in (["-c", script], ["-m", "controlplane", "agent", "--help"]):
        done = subprocess.run(
            [str(python), "-P", *arguments],
            cwd=python.parent,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert 0 == done.returncode, done.stderr[-2_000:]


def test_another_command_says_what_to_install(python: Path) -> None:
    command = [str(python), "-P", "-m", "controlplane", "up"]
    done = subprocess.run(command, cwd=python.parent, capture_output=True, text=True, check=False)
    assert 2 == done.returncode
    assert "invalid choice: 'up'" in done.stderr
    helped = _run([*command[:-1], "--help"])
    assert "inference-controlplane[server]" in helped.stdout


def test_the_agent_starts_and_names_what_is_not_set(python: Path) -> None:
    command = [str(python), "-P", "-m", "controlplane", "agent"]
    env = {"HOME": str(python.parent)}
    done = subprocess.run(
        command, cwd=python.parent, env=env, capture_output=True, text=True, check=False
    )
    assert (2, True) == (done.returncode, "server_url" in done.stderr.lower()), done.stderr
