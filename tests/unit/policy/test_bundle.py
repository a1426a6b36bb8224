"""Signed bytes: verified before they are parsed, refused when anything is off."""

import base64
from datetime import UTC, datetime

import hypothesis.strategies as st
import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given

from controlplane.core.errors import PolicyError
from controlplane.policy.bundle import (
    Signer,
    Verifier,
    decode_document,
    encode_document,
    open_bundle,
)
from controlplane.policy.document import Deny, PolicyDocument, RatePerMillion

SIGNER = Signer(bytes(range(32)))
OTHER = Signer(bytes(32))
VERIFIER = Verifier(SIGNER.pinned)
DOCUMENT = PolicyDocument(
    issued_at=datetime(2026, 11, 20, tzinfo=UTC),
    rules=(Deny(id="r", match={"team": ("a",)}),),
    rate_card={
        "z": RatePerMillion(input_nusd=1, output_nusd=2),
        "a": RatePerMillion(input_nusd=3, output_nusd=4),
    },
)


def test_document_survives_signing() -> None:
    """What was compiled is what the agent reads."""
    body = encode_document(DOCUMENT)
    assert DOCUMENT == open_bundle(body, SIGNER.sign(body), VERIFIER)


def test_signature_is_plain_ed25519() -> None:
    """Checked with the library alone, from the header's own text."""
    body = encode_document(DOCUMENT)
    kind, kid, signature = SIGNER.sign(body).split(";", 2)
    assert ("ed25519", f"kid={SIGNER.kid}") == (kind, kid)
    public = Ed25519PublicKey.from_public_bytes(base64.b64decode(SIGNER.pinned[SIGNER.kid]))
    public.verify(base64.b64decode(signature.removeprefix("sig=")), body)


def test_known_answer() -> None:
    """RFC 8032, section 7.1, test 2: the key, the message and the signature are theirs."""
    seed = bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb")
    expected = bytes.fromhex(
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
    )
    header = Signer(seed).sign(bytes.fromhex("72"))
    assert expected == base64.b64decode(header.rpartition("sig=")[2])


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_any_changed_byte_is_noticed(place: int, flip: int) -> None:
    """Before it is parsed: the decoder never sees it."""
    body = bytearray(encode_document(DOCUMENT))
    header = SIGNER.sign(bytes(body))
    body[place % len(body)] ^= flip
    with pytest.raises(PolicyError, match="does not sign"):
        open_bundle(bytes(body), header, VERIFIER)


@pytest.mark.parametrize(
    "header",
    [
        "",
        "ed25519",
        "rsa;kid=x;sig=" + "A" * 86 + "==",
        f"ed25519;kid={SIGNER.kid};sig=short",
        f"ed25519;kid={SIGNER.kid};sig=" + "A" * 86 + "==",
        SIGNER.sign(b"other"),
        SIGNER.sign(encode_document(DOCUMENT)) + "\n",
        OTHER.sign(encode_document(DOCUMENT)),
        OTHER.sign(encode_document(DOCUMENT)).replace(OTHER.kid, SIGNER.kid),
    ],
)
def test_wrong_signature_is_refused(header: str) -> None:
    """Missing, malformed, of other bytes, of a key that is not pinned, under a false name."""
    with pytest.raises(PolicyError):
        VERIFIER.verify(encode_document(DOCUMENT), header)


def test_two_keys_may_live_while_they_are_rotated() -> None:
    """An agent that pins both takes either."""
    both = Verifier({**SIGNER.pinned, **OTHER.pinned})
    for signer in (SIGNER, OTHER):
        both.verify(b"body", signer.sign(b"body"))


def test_equal_documents_give_equal_bytes() -> None:
    """Whatever the order their maps were filled in."""
    turned = msgspec.structs.replace(DOCUMENT, rate_card=dict(reversed(DOCUMENT.rate_card.items())))
    assert encode_document(DOCUMENT) == encode_document(turned)


@pytest.mark.parametrize(
    "patch",
    [
        (b'"scope"', b'"extra":1,"scope"'),
        (b'"action":"deny"', b'"action":"deny","colour":"red"'),
        (b'"action":"deny"', b'"action":"explode"'),
        (b'"input_nusd":1', b'"input_nusd":1.5'),
        (b"}", b""),
    ],
    ids=["field", "rule field", "action", "float money", "truncated"],
)
def test_what_is_not_understood_refuses_the_whole(patch: tuple[bytes, bytes]) -> None:
    """An old agent must not apply half of it (algorithms D1)."""
    body = encode_document(DOCUMENT)
    assert patch[0] in body
    with pytest.raises(PolicyError):
        decode_document(body.replace(*patch, 1) if patch[1] else body[:-1])
