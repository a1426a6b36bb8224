"""The text of a key: made, read back, and hashed so that only its holder can show it."""

import hmac

import hypothesis.strategies as st
import pytest
from hypothesis import given

from controlplane.auth.api_key import hash_secret, new_key, parse_key, verify_secret
from controlplane.auth.principal import PrincipalKind
from controlplane.core.errors import AuthenticationError

PEPPER = b"pepper" * 5
KINDS = [kind for kind in PrincipalKind if kind is not PrincipalKind.SESSION]


@given(
    st.sampled_from(KINDS),
    st.text("abcdefghjkmnpqrstvwxyz0123456789", min_size=1, max_size=64),
    st.binary(min_size=32, max_size=32),
)
def test_key_reads_back(kind: PrincipalKind, key_id: str, secret: bytes) -> None:
    """Kind, id and secret, whatever the secret's bytes."""
    made = new_key(kind, key_id, secret)
    parsed = parse_key(made.text)
    assert (kind, key_id, secret.hex()) == (parsed.kind, parsed.key_id, parsed.secret)


@given(st.text(max_size=120))
def test_anything_else_is_refused_without_being_repeated(text: str) -> None:
    """What was presented may be somebody's secret."""
    with pytest.raises(AuthenticationError) as refused:
        parse_key(text)
    assert str(refused.value) == str(AuthenticationError("malformed_key", _fix()))


def _fix() -> str:
    return "Use a key as `controlplane keys create` printed it"


@pytest.mark.parametrize(
    ("kind", "key_id", "size"),
    [
        (PrincipalKind.USER, "k", 31),
        (PrincipalKind.USER, "", 32),
        (PrincipalKind.USER, "K", 32),
        (PrincipalKind.USER, "a_b", 32),
        (PrincipalKind.SESSION, "k", 32),
    ],
)
def test_key_that_could_not_be_read_back_is_not_made(
    kind: PrincipalKind, key_id: str, size: int
) -> None:
    """Short secrets, ids that would split, sessions."""
    with pytest.raises(ValueError, match="can not be made"):
        new_key(kind, key_id, bytes(size))


def test_hash_is_hmac_sha256() -> None:
    """Checked against the standard library's own; a short pepper is none."""
    assert hmac.new(PEPPER, b"secret", "sha256").digest() == hash_secret("secret", PEPPER)
    assert verify_secret("secret", hash_secret("secret", PEPPER), PEPPER)
    assert not verify_secret("Secret", hash_secret("secret", PEPPER), PEPPER)
    assert not verify_secret("secret", hash_secret("secret", b"q" * 16), PEPPER)
    with pytest.raises(ValueError, match="pepper"):
        hash_secret("secret", b"short")
