"""The scrape jobs of the collector role, read from their file."""

from pathlib import Path

import msgspec
import yaml

from collectors.scrape.jobs import ScrapeJob
from controlplane.core.errors import ConfigError

_KEY = "collector.scrape_jobs"


def load_scrape_jobs(path: Path | None) -> list[ScrapeJob]:
    """Read the jobs; none where no file is named.

    Raises:
        ConfigError: names the entry that is wrong and what it takes.
    """
    if path is None:
        return []
    try:
        listed = yaml.safe_load(path.read_text(encoding="utf-8")) or []
        jobs = msgspec.convert(listed, list[ScrapeJob])
    except (yaml.YAMLError, UnicodeDecodeError):
        raise ConfigError(_KEY, f"{path} is not YAML", "Mend the syntax") from None
    except msgspec.ValidationError as wrong:
        raise ConfigError(_KEY, f"{path}: {wrong}", "See deploy/docs/scraping.md") from None
    for job in jobs:
        if not (job.targets or job.files or job.dns):
            raise ConfigError(_KEY, f"{job.job} has no targets", "Name targets, files or dns")
        if job.dns is not None and job.dns.type != "SRV" and job.dns.port is None:
            raise ConfigError(_KEY, f"{job.job} has no dns.port", "Only SRV records bring ports")
    return jobs
