"""How long the files of an export are kept."""

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from controlplane.api.exports import ExportJobs, Job, JobState
from controlplane.core.calendar import Window
from controlplane.core.errors import ControlPlaneError, NotFoundError
from controlplane.exports.manifest import Manifest
from controlplane.pipelines.export_request import ExportRequest
from controlplane.pipelines.signed_directory import About, Part, Stamp, write_signed

NOW = datetime(2026, 3, 1, tzinfo=UTC)
KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))
WINDOW = Window(NOW - timedelta(hours=1), NOW)

Make = Callable[..., Job]


def _write(request: ExportRequest, out: Path, stamp: Stamp) -> Manifest:
    if request.tenant == "broken":
        raise ControlPlaneError(request.tenant)
    about = About(kind="calls", tenant="acme", window=WINDOW, data_through=NOW, csv_escaped=False)
    return write_signed(out, [Part(name="a.csv", body=b"a")], about, key=KEY, stamp=stamp)


@pytest.fixture
def jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ExportJobs]:
    """Jobs that remember two."""
    monkeypatch.setattr("controlplane.api.exports.MAX_REMEMBERED", 2)
    made = ExportJobs(_write, tmp_path, software="test")
    yield made
    made.close()


@pytest.fixture
def make(jobs: ExportJobs) -> Make:
    """Make an export, and wait for it."""

    def made(job_id: str, tenant: str = "acme") -> Job:
        request = ExportRequest(tenant=tenant, window=WINDOW)
        jobs.start(request, job_id=job_id, asked_by="u", now=NOW)
        deadline = time.monotonic() + 60
        while (job := jobs.job(job_id)).state is JobState.RUNNING:
            assert time.monotonic() < deadline
            time.sleep(0.01)  # another thread works on it
        return job

    return made


def _kept(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_the_files_go_with_the_job_that_is_forgotten(
    jobs: ExportJobs, make: Make, tmp_path: Path
) -> None:
    first = make("export_1")
    assert b"a" == jobs.read(first, "a.csv")
    make("export_2")
    assert ["export_1", "export_2"] == _kept(tmp_path)
    make("export_3")
    assert ["export_2", "export_3"] == _kept(tmp_path)
    with pytest.raises(NotFoundError):  # a download that had found it before
        jobs.read(first, "a.csv")


def test_a_job_that_failed_has_no_files_to_remove(make: Make, tmp_path: Path) -> None:
    assert JobState.FAILED is make("export_1", "broken").state
    make("export_2")
    make("export_3")
    assert ["export_2", "export_3"] == _kept(tmp_path)


def test_what_an_earlier_process_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    for name in ("export_1", ".export_2-x7f", "mine"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.csv").write_bytes(b"a")
    ExportJobs(_write, tmp_path, software="test").close()
    assert ["mine"] == _kept(tmp_path)
