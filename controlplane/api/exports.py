"""Exports asked for over HTTP: one at a time on a thread, files kept in one directory.

The list of jobs lives in this process, and files go with it: those of a job that is forgotten, and
at the start those that an earlier process left, which nobody can ask for any more.
"""

import shutil
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Final

import msgspec
import structlog

from controlplane.core.errors import ControlPlaneError, LimitExceededError, NotFoundError
from controlplane.exports.manifest import MANIFEST_NAME, PUBLIC_KEY_NAME, SIGNATURE_NAME, Manifest
from controlplane.pipelines.export_request import ExportRequest
from controlplane.pipelines.signed_directory import Stamp

MAX_WAITING: Final = 8
MAX_REMEMBERED: Final = 200
ID_PREFIX: Final = "export"
_MADE: Final = (f"{ID_PREFIX}_*", f".{ID_PREFIX}_*")
"""Directories of jobs, and of those that were being written when the process was killed."""

log = structlog.stdlib.get_logger()

Export = Callable[[ExportRequest, Path, Stamp], Manifest]
"""`pipelines.export.write_export`, bound to its sources and signing key."""


class JobState(StrEnum):
    """Where an export is."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One export."""

    id: str
    tenant: str
    asked_by: str
    created_at: datetime
    state: JobState = JobState.RUNNING
    error: str | None = None
    manifest: Manifest | None = None

    def files(self) -> tuple[str, ...]:
        """Return the names that can be downloaded."""
        if self.manifest is None:
            return ()
        data = tuple(entry.name for entry in self.manifest.files)
        return (*data, MANIFEST_NAME, SIGNATURE_NAME, PUBLIC_KEY_NAME)


class ExportJobs:
    """Runs and remembers exports; safe for threads."""

    def __init__(self, export: Export, directory: Path, *, software: str) -> None:
        self._export = export
        self._directory = directory
        self._software = software
        self._lock = threading.Lock()
        self._jobs: OrderedDict[str, Job] = OrderedDict()
        self._runner = ThreadPoolExecutor(1, thread_name_prefix="export")
        for pattern in _MADE:
            for left in directory.glob(pattern):
                _remove(left)

    def start(self, request: ExportRequest, *, job_id: str, asked_by: str, now: datetime) -> Job:
        """Queue an export and return its job.

        Raises:
            LimitExceededError: MAX_WAITING are queued already.
        """
        job = Job(id=job_id, tenant=request.tenant, asked_by=asked_by, created_at=now)
        with self._lock:
            waiting = sum(each.state is JobState.RUNNING for each in self._jobs.values())
            if waiting >= MAX_WAITING:
                raise LimitExceededError("exports at once", MAX_WAITING)
            self._jobs[job_id] = job
            forgotten = list(self._jobs)[:-MAX_REMEMBERED]  # ended: MAX_WAITING is far less
            for old in forgotten:
                del self._jobs[old]
        for old in forgotten:
            _remove(self._directory / old)
        self._runner.submit(self._run, job, request)
        return job

    def job(self, job_id: str) -> Job:
        """Return a job.

        Raises:
            NotFoundError: unknown, or forgotten.
        """
        with self._lock:
            job = self._jobs.get(job_id)
        if job is None:
            raise NotFoundError("export", job_id)
        return job

    def read(self, job: Job, name: str) -> bytes:
        """Return a file of a finished job.

        Raises:
            NotFoundError: the job's manifest has no such file, or the job was forgotten meanwhile.
        """
        if name not in job.files():
            raise NotFoundError("file", name)
        with self._lock:
            if job.id not in self._jobs:
                raise NotFoundError("export", job.id)
            file = (self._directory / job.id / name).open("rb")  # may be removed once it is open
        with file:
            return file.read()

    def close(self) -> None:
        """Let the running export end and drop those that wait."""
        self._runner.shutdown(cancel_futures=True)

    def _run(self, job: Job, request: ExportRequest) -> None:
        stamp = Stamp(export_id=job.id, created_at=job.created_at, software=self._software)
        try:
            manifest = self._export(request, self._directory / job.id, stamp)
            ended = msgspec.structs.replace(job, state=JobState.DONE, manifest=manifest)
        except ControlPlaneError as error:
            ended = msgspec.structs.replace(job, state=JobState.FAILED, error=str(error))
        except Exception:
            log.exception("export_failed", export_id=job.id)
            ended = msgspec.structs.replace(
                job, state=JobState.FAILED, error="The server failed; see its log"
            )
        with self._lock:
            if job.id in self._jobs:
                self._jobs[job.id] = ended


def _remove(directory: Path) -> None:
    try:
        shutil.rmtree(directory)
    except FileNotFoundError:
        pass  # it failed, and wrote nothing
    except OSError:
        log.exception("export_not_removed", directory=str(directory))
