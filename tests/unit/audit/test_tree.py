"""The Merkle tree against the published Certificate Transparency vectors, and its own proofs."""

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.audit.tree import inclusion_proof, leaf_hash, root_from_proof, root_hash

ENTRIES = [
    bytes.fromhex(text)
    for text in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


@pytest.mark.parametrize("size", range(1, 9))
def test_root_equals_the_published_vector(size: int) -> None:
    """The eight roots every Certificate Transparency log is tested with."""
    assert ROOTS[size - 1] == root_hash([leaf_hash(e) for e in ENTRIES[:size]]).hex()


def test_empty_tree_is_the_hash_of_nothing() -> None:
    """RFC 6962 section 2.1."""
    assert sha256(b"").digest() == root_hash([])


@given(st.lists(st.binary(max_size=8), min_size=1, max_size=40), st.data())
def test_a_proof_leads_to_the_root_and_no_other_leaf_does(
    entries: list[bytes], data: st.DataObject
) -> None:
    """Inclusion is provable for every leaf, with the iterative algorithm of RFC 9162."""
    leaves = [leaf_hash(entry) for entry in entries]
    index = data.draw(st.integers(0, len(leaves) - 1))
    proof = inclusion_proof(leaves, index)
    size, root = len(leaves), root_hash(leaves)
    assert root == root_from_proof(leaves[index], index=index, size=size, proof=proof)
    assert root != root_from_proof(leaf_hash(b"other leaf"), index=index, size=size, proof=proof)
    assert root != root_from_proof(leaves[index], index=index, size=size, proof=[*proof, root])


def test_no_such_leaf() -> None:
    """An index outside the tree is an error, or no proof."""
    with pytest.raises(IndexError, match="leaf 1 of 1"):
        inclusion_proof([leaf_hash(b"")], 1)
    assert root_from_proof(leaf_hash(b""), index=3, size=2, proof=[]) is None
