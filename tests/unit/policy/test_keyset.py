"""Sets of policy keys: the root decides, newer only, ours only, revoked for good."""

from datetime import UTC, datetime

import msgspec
import pytest

from controlplane.core.errors import PolicyError
from controlplane.policy.bundle import Signer
from controlplane.policy.keyset import KeyRing, KeySet, SignedKeySet, sign_key_set

NOW = datetime(2026, 11, 20, tzinfo=UTC)
ROOT, OTHER_ROOT = Signer(b"r" * 32), Signer(b"q" * 32)
OLD, NEW = Signer(b"o" * 32), Signer(b"n" * 32)


def signed(
    version: int,
    *keys: Signer,
    revoked: tuple[str, ...] = (),
    instance: str = "i",
    root: Signer = ROOT,
) -> SignedKeySet:
    listed = {kid: text for key in keys for kid, text in key.pinned.items()}
    wanted = KeySet(version=version, instance=instance, issued_at=NOW, keys=listed, revoked=revoked)
    return sign_key_set(wanted, root)


def trusts(ring: KeyRing, key: Signer) -> bool:
    try:
        ring.verify(b"body", key.sign(b"body"))
    except PolicyError:
        return False
    return True


@pytest.fixture
def ring() -> KeyRing:
    return KeyRing(OLD.pinned, ROOT.pinned)


def test_rotation_never_leaves_a_moment_without_a_trusted_key(ring: KeyRing) -> None:
    """Pinned; both live; the new one alone, and the old one revoked."""
    assert (True, False) == (trusts(ring, OLD), trusts(ring, NEW))
    assert ring.accept(signed(1, OLD, NEW))
    assert (True, True) == (trusts(ring, OLD), trusts(ring, NEW))
    assert ring.accept(signed(2, NEW, revoked=(OLD.kid,)))
    assert (False, True) == (trusts(ring, OLD), trusts(ring, NEW))
    assert not ring.accept(signed(2, NEW, revoked=(OLD.kid,)))


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        (signed(9, NEW, root=OTHER_ROOT), "not pinned"),
        (signed(4, OLD), "older"),
        (signed(5, NEW), "other content"),
        (signed(6, NEW, instance="staging"), "not ours"),
        (SignedKeySet(6, b"{}", ROOT.sign(b"{}")), "keys"),
        (SignedKeySet(6, b"{}", OLD.sign(b"{}")), "not pinned"),
    ],
)
def test_wrong_sets_change_nothing(ring: KeyRing, wrong: SignedKeySet, word: str) -> None:
    """A stolen signing key, a clone, a replay: the keys stay as they are."""
    ring.accept(signed(5, OLD))
    with pytest.raises(PolicyError, match=word):
        ring.accept(wrong)
    assert (True, False) == (trusts(ring, OLD), trusts(ring, NEW))


def test_a_revoked_key_is_not_trusted_where_a_set_lists_it_all_the_same(ring: KeyRing) -> None:
    """We sign no such set, and another writer's may say both: then no wins."""
    listed = {**OLD.pinned, **NEW.pinned}
    both = KeySet(version=1, instance="i", issued_at=NOW, keys=listed, revoked=(OLD.kid,))
    body = msgspec.json.encode(both)
    assert ring.accept(SignedKeySet(1, body, ROOT.sign(body)))
    assert (False, True) == (trusts(ring, OLD), trusts(ring, NEW))


def test_set_that_contradicts_itself_is_not_signed() -> None:
    """No key, or one that is in use and revoked."""
    with pytest.raises(PolicyError, match="no key"):
        signed(1)
    with pytest.raises(PolicyError, match="in use and revoked"):
        signed(1, OLD, revoked=(OLD.kid,))
