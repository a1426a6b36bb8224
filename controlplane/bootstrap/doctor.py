"""What an operator would check by hand, each with the fix in its sentence."""

import os
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgspec

from controlplane.settings import Settings, is_loopback

MIN_FREE_BYTES = 2 * 2**30
SLOW_FSYNC_SECONDS = 0.05


class Check(msgspec.Struct, frozen=True):
    """One thing looked at; `fix` is empty when it is fine."""

    name: str
    ok: bool
    detail: str
    fix: str = ""


def examine(settings: Settings) -> list[Check]:
    """Look at this machine as the configured system would use it; nothing is changed."""
    return [
        _python(),
        *_disk(_nearest(settings.data_dir)),
        _secrets(settings.secrets_dir),
        *_ports(settings),
        _exposure(settings),
    ]


def _python() -> Check:
    version = ".".join(map(str, sys.version_info[:3]))
    return Check("python", sys.version_info >= (3, 11), version, "")


def _nearest(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path


def _disk(folder: Path) -> Iterator[Check]:
    free = shutil.disk_usage(folder).free
    yield Check(
        "disk_space",
        free >= MIN_FREE_BYTES,
        f"{free / 2**30:.1f} GiB free at {folder}",
        "" if free >= MIN_FREE_BYTES else "Free some space, or set data_dir to another disk",
    )
    try:
        seconds = _fsync_seconds(folder)
    except OSError as wrong:
        fix = f"Make {folder} writable for this user, or set data_dir"
        yield Check("disk_write", ok=False, detail=str(wrong.strerror), fix=fix)
        return
    slow = seconds > SLOW_FSYNC_SECONDS
    yield Check(
        "disk_write",
        not slow,
        f"fsync takes {1_000 * seconds:.1f} ms",
        "Every acknowledgement waits for it: use a local disk" if slow else "",
    )


def _fsync_seconds(folder: Path) -> float:
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(b"x")
        file.flush()
        started = time.monotonic()
        os.fsync(file.fileno())
        return time.monotonic() - started


def _secrets(folder: Path) -> Check:
    if not folder.exists():
        return Check("secrets", ok=True, detail=f"{folder} is made on first use")
    open_ = [p.name for p in folder.iterdir() if p.is_file() and p.stat().st_mode & 0o077]
    fix = f"chmod 600 {' '.join(open_)} in {folder}" if open_ else ""
    return Check("secrets", not open_, f"{len(list(folder.iterdir()))} files in {folder}", fix)


def _ports(settings: Settings) -> Iterator[Check]:
    for name, host, port in (
        ("collector.grpc_port", settings.collector.host, settings.collector.grpc_port),
        ("collector.http_port", settings.collector.host, settings.collector.http_port),
        ("collector.metrics_port", settings.collector.host, settings.collector.metrics_port),
        ("api.port", settings.api.host, settings.api.port),
        ("dashboard.port", settings.dashboard.host, settings.dashboard.port),
    ):
        taken = bool(port) and _is_taken(host, port)
        detail = f"{host}:{port} is {'in use' if taken else 'free'}"
        fix = f"Stop what listens there (is the system running already?) or set {name}"
        yield Check(name, not taken, detail, fix if taken else "")


def _is_taken(host: str, port: int) -> bool:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with suppress(OSError):
            probe.bind((host, port))
            return False
    return True


def _exposure(settings: Settings) -> Check:
    hosts = {
        "collector": settings.collector.host,
        "api": settings.api.host,
        "dashboard": settings.dashboard.host,
    }
    reachable = [name for name, host in hosts.items() if not is_loopback(host)]
    if not reachable:
        return Check("exposure", ok=True, detail="loopback only")
    return Check(
        "exposure",
        ok=True,
        detail=f"reachable from other machines: {', '.join(reachable)}; senders need keys",
        fix="Put TLS in front of what is reachable",
    )
