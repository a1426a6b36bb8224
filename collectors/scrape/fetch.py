"""One GET, bounded in time and bytes whatever the other side does."""

import time
from pathlib import Path

import httpx

from collectors.scrape.jobs import ScrapeJob

ACCEPT = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"


class ScrapeError(Exception):
    """A scrape that brought nothing; `reason` is the counter's label."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


def fetch(client: httpx.Client, job: ScrapeJob, address: str) -> tuple[str, str]:
    """Answer (content type, text) of a target.

    Redirects are not followed and no compression is asked for: a target that we were told of must
    not send us elsewhere, nor a small body become a large one.

    Raises:
        ScrapeError: unreachable, timeout, status, too_large or not_text.
    """
    deadline = time.monotonic() + job.timeout_seconds
    headers = {"accept": ACCEPT, "accept-encoding": "identity", **_authorization(job)}
    url = f"{job.scheme}://{address}{job.path}"
    parts: list[bytes] = []
    size = 0
    try:
        with client.stream("GET", url, headers=headers, timeout=job.timeout_seconds) as answer:
            if answer.status_code != httpx.codes.OK:
                raise ScrapeError("status")
            if answer.headers.get("content-encoding", "identity") != "identity":
                raise ScrapeError("not_text")
            for part in answer.iter_raw():
                size += len(part)
                if size > job.max_bytes:
                    raise ScrapeError("too_large")
                if time.monotonic() > deadline:
                    raise ScrapeError("timeout")
                parts.append(part)
            kind = answer.headers.get("content-type", "")
    except httpx.TimeoutException:
        raise ScrapeError("timeout") from None
    except (httpx.HTTPError, httpx.InvalidURL, OSError):
        raise ScrapeError("unreachable") from None
    try:
        return kind, b"".join(parts).decode("utf-8")
    except UnicodeDecodeError:
        raise ScrapeError("not_text") from None


def _authorization(job: ScrapeJob) -> dict[str, str]:
    if job.bearer_token_file is None:
        return {}
    # Read each time: tokens that are mounted change while we run.
    token = Path(job.bearer_token_file).read_text("utf-8").strip()
    return {"authorization": f"Bearer {token}"}
