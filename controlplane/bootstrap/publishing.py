"""What the hub publishes and settles with: ceiling rates, prices of settles, new keys."""

from datetime import UTC, datetime, timedelta
from functools import lru_cache

from controlplane.api.services import KeyOrder
from controlplane.auth.api_key import KeyText
from controlplane.bootstrap.metadata import make_key
from controlplane.pipelines.publish import RateCard
from controlplane.policy.wire import Settle
from controlplane.pricing.ceiling import ceiling_rates, provider_ceilings
from controlplane.pricing.price_book import PriceBook
from controlplane.pricing.quote import quote
from controlplane.store.metadata.keys import KeyRepository, NewKey

MAX_CALL = timedelta(minutes=15)
"""A ceiling covers every price that can start to apply while a call runs."""


class RateCards:
    """Ceiling rates keyed `provider/model` and, for the maker's own models, by the bare name."""

    def __init__(self, book: PriceBook) -> None:
        self._book = book
        self._at_hour = lru_cache(maxsize=2)(self._compile)

    def __call__(self, now: datetime) -> RateCard:
        """Return the card that holds for the hour of `now` and as long as a call may run after."""
        hour = now.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
        return self._at_hour(hour, self._book.version)

    def _compile(self, hour: datetime, version: str) -> RateCard:
        names = self._book.names()
        horizon = timedelta(hours=1) + MAX_CALL
        rates = ceiling_rates(self._book, names, at=hour, horizon=horizon)
        ceilings = provider_ceilings(rates)
        for provider, model in names:
            own = rates.get(f"{provider}/{model}")
            if own is not None and self._book.is_makers(provider, model):
                rates.setdefault(model, own)
        return RateCard(rates, version, ceilings)


def price_settle(book: PriceBook, settle: Settle) -> int | None:
    """Return nano-USD of what a settle used, at its own start; None when no price is known."""
    answer = quote(
        book,
        provider=settle.provider or None,
        model=settle.model,
        at=settle.started_at,
        usage=settle.usage or {},
    )
    return answer.total_nusd


class KeyMaker:
    """Makes the keys that are asked for over HTTP."""

    def __init__(self, keys: KeyRepository) -> None:
        self._keys = keys

    def __call__(self, order: KeyOrder, _now: datetime) -> KeyText:
        """Draw an id and a secret, and keep the key."""
        wanted = NewKey(
            kind=order.kind,
            role=order.role,
            name=order.name,
            tenant=order.tenant,
            all_tenants=order.all_tenants,
            tenant_map=order.tenant_map,
            dimensions=order.dimensions,
            policy_scopes=order.policy_scopes,
            expires_at=order.expires_at,
        )
        return make_key(self._keys, wanted)
