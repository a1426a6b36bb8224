"""`controlplane erase`: ask the running API to forget a person."""

import msgspec

from controlplane.bootstrap.remote import RemoteApi


class ErasureAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What the API says it touched, or would touch."""

    tenant: str
    spans: int
    traces: int
    applied: bool


def erase(api: RemoteApi, *, tenant: str, user: str, apply: bool) -> ErasureAnswer:
    """Erase a user, or count what that would touch."""
    order = {"tenant": tenant, "user": user, "apply": apply}
    return api.post_as("/erasures", order, ErasureAnswer)
