"""Merkle tree hashes as RFC 6962 section 2.1 defines them (SHA-256).

Leaves and nodes are hashed with different prefixes, so that a node can never pass for a leaf.
"""

from collections.abc import Sequence
from hashlib import sha256

LEAF_PREFIX = b"\x00"
NODE_PREFIX = b"\x01"


def leaf_hash(entry: bytes) -> bytes:
    """Hash one entry."""
    return sha256(LEAF_PREFIX + entry).digest()


def root_hash(leaves: Sequence[bytes]) -> bytes:
    """Hash a tree of leaf hashes; the empty tree hashes to SHA-256 of nothing."""
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    split = _split(len(leaves))
    return _node(root_hash(leaves[:split]), root_hash(leaves[split:]))


def _node(left: bytes, right: bytes) -> bytes:
    return sha256(NODE_PREFIX + left + right).digest()


def _split(size: int) -> int:
    """Return the largest power of two below `size`, which is at least 2."""
    return 1 << (size - 1).bit_length() - 1
