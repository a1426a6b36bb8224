"""What GPU cost asks of the store."""

from datetime import datetime
from typing import Protocol

import msgspec
import pyarrow as pa

from controlplane.core.calendar import Window
from controlplane.pricing.gpu_pool import GpuPool


class BucketBill(msgspec.Struct, frozen=True, kw_only=True):
    """A pool's quarter of an hour as it was worked out."""

    pool: str
    bucket: datetime
    bill_nusd: int
    busy_ratio: float
    confidence: str
    fingerprint: int
    computed_at: datetime


class GpuPools(Protocol):
    """Where pools that were made through the API are kept."""

    def pools(self) -> tuple[GpuPool, ...]:
        """Answer all of them, by name."""
        ...

    def put(self, pool: GpuPool, *, by: str, now: datetime) -> None:
        """Make or replace a pool."""
        ...

    def remove(self, name: str) -> bool:
        """Forget a pool; answer whether there was one. Buckets worked out keep their lines."""
        ...


class GpuStore(Protocol):
    """The half of a span store that GPU cost works on."""

    def served_calls(self, window: Window) -> pa.Table:
        """Answer self-hosted calls of every tenant that were in progress in a window."""
        ...

    def sample_tenants(self) -> tuple[str, ...]:
        """Answer every tenant that has samples."""
        ...

    def fingerprint(self, pool: str, bucket: datetime) -> int | None:
        """Answer what a bucket was worked out from; None if it was not."""
        ...

    def replace(self, bill: BucketBill, shares: pa.Table, calls: pa.Table) -> None:
        """Put a bucket's lines in the place of those before, in one transaction.

        Raises:
            StoreUnavailableError: nothing changed; work it out again.
        """
        ...

    def unbilled_reports(self, bucket: Window) -> pa.Table:
        """Answer the billing reports of a bucket's calls that do not say their GPU cost yet.

        SPAN_SCHEMA rows as said last, `gpu_nusd` (over every bucket) and `pool`. Calls that have
        a price of their own are left out.
        """
        ...

    def shares(
        self, tenants: tuple[str, ...], window: Window, *, with_idle: bool, by_bucket: bool
    ) -> pa.Table:
        """Answer lines of the tenants, and those that nobody bears if asked, summed.

        Columns are SHARE_SCHEMA's, `bucket` only if asked.
        """
        ...

    def bearers(self, window: Window) -> tuple[str, ...]:
        """Answer who bears idle time in a window, in order; it may have no call of its own."""
        ...

    def bills(self, window: Window) -> pa.Table:
        """Answer pool, bill_nusd, busy_ratio, confidence and buckets of every pool."""
        ...

    def call_cost(self, tenants: tuple[str, ...], call_id: str) -> pa.Table:
        """Answer CALL_COST_SCHEMA rows of a call, one a bucket that it ran in."""
        ...
