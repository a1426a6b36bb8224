"""Merkle tree hashes and inclusion proofs as RFC 6962 section 2.1 defines them (SHA-256).

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


def inclusion_proof(leaves: Sequence[bytes], index: int) -> list[bytes]:
    """Return the sibling hashes from leaf `index` up to the root.

    Raises:
        IndexError: no such leaf.
    """
    if not 0 <= index < len(leaves):
        msg = f"leaf {index} of {len(leaves)}"
        raise IndexError(msg)
    if len(leaves) == 1:
        return []
    split = _split(len(leaves))
    if index < split:
        return [*inclusion_proof(leaves[:split], index), root_hash(leaves[split:])]
    return [*inclusion_proof(leaves[split:], index - split), root_hash(leaves[:split])]


def root_from_proof(leaf: bytes, *, index: int, size: int, proof: Sequence[bytes]) -> bytes | None:
    """Return the root that a proof leads to, or None when its length can not be right.

    The algorithm of RFC 9162 section 2.1.3.2, which needs no tree.
    """
    if not 0 <= index < size:
        return None
    node, last, digest = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            return None
        if node % 2 or node == last:
            digest = _node(sibling, digest)
            while node and not node % 2:
                node >>= 1
                last >>= 1
        else:
            digest = _node(digest, sibling)
        node >>= 1
        last >>= 1
    return digest if last == 0 else None


def _node(left: bytes, right: bytes) -> bytes:
    return sha256(NODE_PREFIX + left + right).digest()


def _split(size: int) -> int:
    """Return the largest power of two below `size`, which is at least 2."""
    return 1 << (size - 1).bit_length() - 1
