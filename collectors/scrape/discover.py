"""Finds the targets of a job: named, in files, in DNS."""

from pathlib import Path
from typing import Final, Protocol

import dns.exception
import dns.resolver
import msgspec
import structlog
import yaml

from collectors.scrape.jobs import DnsNames, ScrapeJob, Target

MAX_TARGETS: Final = 5_000
DNS_SECONDS: Final = 5.0

log = structlog.stdlib.get_logger()


class TargetGroup(msgspec.Struct, frozen=True):
    """An entry of a file_sd file."""

    targets: tuple[str, ...]
    labels: dict[str, str] = {}


class Lookup(Protocol):
    """Asks the DNS; a test asks a server of its own."""

    def __call__(self, names: DnsNames) -> list[str]:
        """Answer `host:port` of every record.

        Raises:
            OSError: there is no answer now.
        """
        ...


class Discovery:
    """The targets of one job; what can not be read now keeps what it said last."""

    def __init__(self, job: ScrapeJob, *, lookup: Lookup) -> None:
        self._job = job
        self._lookup = lookup
        self._files: dict[str, tuple[tuple[int, int], list[Target]]] = {}
        self._dns: list[Target] = []
        self.failures = 0
        """Looks that brought nothing new because a source could not be read."""

    def targets(self) -> list[Target]:
        """Answer every target now, each once, in a stable order."""
        found = [Target(address) for address in self._job.targets]
        for name in self._job.files:
            found += self._of_file(name)
        if self._job.dns is not None:
            found += self._of_dns(self._job.dns)
        by_address = {target.address: target for target in reversed(found)}
        return [by_address[address] for address in sorted(by_address)][:MAX_TARGETS]

    def _of_file(self, name: str) -> list[Target]:
        stamp, before = self._files.get(name, ((0, 0), []))
        path = Path(name)
        try:
            stat = path.stat()
            now = (stat.st_mtime_ns, stat.st_size)
            if now != stamp:
                before = _read(path)
                self._files[name] = (now, before)
        except (OSError, ValueError, yaml.YAMLError, msgspec.MsgspecError) as error:
            self.failures += 1
            log.warning("scrape_targets_unreadable", file=name, error=type(error).__name__)
        return before

    def _of_dns(self, names: DnsNames) -> list[Target]:
        try:
            self._dns = [Target(address) for address in self._lookup(names)]
        except OSError as error:
            self.failures += 1
            log.warning("scrape_targets_not_resolved", names=names.names, says=str(error))
        return self._dns


def _read(path: Path) -> list[Target]:
    groups = msgspec.convert(yaml.safe_load(path.read_text("utf-8")) or [], list[TargetGroup])
    return [
        Target(address, tuple(sorted(group.labels.items())))
        for group in groups
        for address in group.targets
    ]


def resolve(names: DnsNames) -> list[str]:
    """Ask the DNS; see `Lookup`."""
    resolver = dns.resolver.Resolver(configure=names.server is None)
    if names.server is not None:
        host, _, port = names.server.rpartition(":")
        resolver.nameservers = [host]
        resolver.port = int(port)
    found: list[str] = []
    for name in names.names:
        try:
            answer = resolver.resolve(name, names.type, lifetime=DNS_SECONDS, search=False)
        except dns.exception.DNSException as error:
            raise OSError(f"{name}: {type(error).__name__}") from error
        for record in answer:
            if names.type == "SRV":
                found.append(f"{record.target.to_text(omit_final_dot=True)}:{record.port}")
            else:
                host = record.address
                found.append(f"[{host}]:{names.port}" if ":" in host else f"{host}:{names.port}")
    return found
