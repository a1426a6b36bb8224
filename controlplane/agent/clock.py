"""The agent's own clock: it runs in processes that know nothing of our composition root."""

import os
import secrets
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Protocol

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class AgentClock:
    """Time of this machine; satisfies `controlplane.core.clock.Clock`."""

    def now(self) -> datetime:
        """Aware UTC wall time."""
        return datetime.now(UTC)  # noqa: TID251 - the agent's one wall clock, passed on from here

    def monotonic(self) -> float:
        """Seconds since boot; suspended time counts, or a lease would outlive its expiry."""
        return seconds_since_boot()


def seconds_since_boot() -> float:
    """Return seconds since boot, time asleep included."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def machine_boot_id() -> str:
    """Name this boot of the machine; unlike every other value where the platform has none."""
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return secrets.token_hex(16)


def process_start(pid: int) -> str | None:
    """Return when `pid` started, in ticks since boot; None when there is no such process.

    With the boot id this tells a process from a later one that got the same number.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # The command name may hold spaces and brackets: fields are counted after the last one.
    return stat.rpartition(")")[2].split()[19]


def holder_name() -> str:
    """Name this process as a lease holder: boot, pid, start and a nonce (algorithms L11)."""
    pid = os.getpid()
    return f"{machine_boot_id()}:{pid}:{process_start(pid) or 0}:{secrets.token_hex(4)}"


def holder_lives(holder: str) -> bool:
    """Whether the process that this holder names still runs on this boot of this machine."""
    boot, pid, start, _nonce = holder.split(":")
    return boot == machine_boot_id() and process_start(int(pid)) == start


def same_boot(holder: str) -> bool:
    """Whether what this holder wrote without a sync to disk is still complete."""
    return holder.partition(":")[0] == machine_boot_id()


class Machine(Protocol):
    """What a holder knows of the machine it runs on."""

    def name_holder(self) -> str:
        """Return a name that no other holder has, anywhere, at any time."""
        ...

    def lives(self, holder: str) -> bool:
        """Whether the process that this holder names still runs here."""
        ...

    def same_boot(self, holder: str) -> bool:
        """Whether what this holder wrote without a sync to disk is still complete."""
        ...


class ThisMachine:
    """The machine of this process."""

    def name_holder(self) -> str:
        """Name this process as a lease holder."""
        return holder_name()

    def lives(self, holder: str) -> bool:
        """Whether the process that this holder names still runs on this boot of this machine."""
        return holder_lives(holder)

    def same_boot(self, holder: str) -> bool:
        """Whether what this holder wrote without a sync to disk is still complete."""
        return same_boot(holder)


THIS_MACHINE: Final = ThisMachine()
