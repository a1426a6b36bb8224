"""Exchange the keys that sign policies: prepare the next, have the root sign both, switch, revoke.

The root key is a file that its owner keeps away from servers; it is read here and nowhere else.
"""

import base64
import os
import secrets
from collections.abc import Sequence
from pathlib import Path

import msgspec

from controlplane.bootstrap.metadata import open_metadata, open_signer
from controlplane.bootstrap.places import INSTANCE_ID, NEXT_SIGNING_KEY, SIGNING_KEY
from controlplane.bootstrap.system import SystemClock, secret_file
from controlplane.core.errors import ConfigError, ConflictError, InvalidInputError
from controlplane.durable import sync_directory
from controlplane.policy.bundle import SEED_BYTES, Signer
from controlplane.policy.keyset import KeySet, sign_key_set
from controlplane.settings import Settings
from controlplane.store.metadata.policies import PolicyRepository


class KeysNow(msgspec.Struct, frozen=True, kw_only=True):
    """Which keys there are."""

    current: dict[str, str]
    next: dict[str, str]
    version: int | None
    listed: tuple[str, ...] = ()
    revoked: tuple[str, ...] = ()


def make_root(path: Path) -> dict[str, str]:
    """Write a new root key and return what agents pin.

    Raises:
        ConflictError: the file is there.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise ConflictError(f"{path} is there. A root key is never replaced in place") from None
    seed = secrets.token_bytes(SEED_BYTES)
    with os.fdopen(descriptor, "wb") as file:
        file.write(base64.b64encode(seed) + b"\n")
        file.flush()
        os.fsync(descriptor)
    sync_directory(path.parent)  # agents are about to pin it
    return Signer(seed).pinned


def show(settings: Settings) -> KeysNow:
    """Return which keys sign and which are listed."""
    known = _newest(settings)
    following = settings.secrets_dir / NEXT_SIGNING_KEY
    return KeysNow(
        current=open_signer(settings).pinned,
        next=Signer(following.read_bytes()).pinned if following.exists() else {},
        version=known.version if known else None,
        listed=tuple(known.keys) if known else (),
        revoked=known.revoked if known else (),
    )


def prepare(settings: Settings) -> KeysNow:
    """Make the next signing key, which signs nothing yet; twice is once."""
    secret_file(settings.secrets_dir / NEXT_SIGNING_KEY)
    return show(settings)


def sign(settings: Settings, root_file: Path, revoke: Sequence[str]) -> KeysNow:
    """Publish the next version of the set: the current and the next key, less what is revoked.

    Raises:
        ConfigError: the root key can not be read.
        InvalidInputError: a key to revoke that signs now.
        ConflictError: somebody else signed a set meanwhile.
    """
    root, now, known = _root(root_file), show(settings), _newest(settings)
    live = now.current | now.next
    for kid in revoke:
        if kid in now.current:
            raise InvalidInputError("--revoke", f"{kid} signs now", "Switch to the next key first")
    revoked = {*(known.revoked if known else ()), *revoke}
    wanted = KeySet(
        version=known.version + 1 if known else 1,
        instance=secret_file(settings.secrets_dir / INSTANCE_ID, size=16).hex(),
        issued_at=SystemClock().now(),
        keys={kid: key for kid, key in live.items() if kid not in revoked},
        revoked=tuple(sorted(revoked)),
    )
    engine = open_metadata(settings)
    try:
        PolicyRepository(engine).add_key_set(sign_key_set(wanted, root))
    finally:
        engine.dispose()
    return show(settings)


def switch(settings: Settings) -> KeysNow:
    """Sign with the next key from the next start on.

    Raises:
        ConflictError: no next key, or agents were not told of it.
    """
    following, known = settings.secrets_dir / NEXT_SIGNING_KEY, _newest(settings)
    if not following.exists():
        raise ConflictError("there is no next key. Prepare one")
    (kid,) = Signer(following.read_bytes()).pinned
    if known is None or kid not in known.keys:
        raise ConflictError("the next key is in no signed set: agents would refuse it. Sign one")
    following.replace(settings.secrets_dir / SIGNING_KEY)
    return show(settings)


def _root(path: Path) -> Signer:
    try:
        return Signer(base64.b64decode(path.read_bytes().strip(), validate=True))
    except (OSError, ValueError):
        raise ConfigError(
            "--root", f"{path} is no root key", "Name a file of `keys root`"
        ) from None


def _newest(settings: Settings) -> KeySet | None:
    engine = open_metadata(settings)
    try:
        signed = PolicyRepository(engine).key_set()
    finally:
        engine.dispose()
    return msgspec.json.decode(signed.body, type=KeySet) if signed else None
