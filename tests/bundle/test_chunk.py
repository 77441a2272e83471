"""Content becomes a chunk, and comes out of it only if it is as declared."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from megacache._bundle import Digest, open_chunk, pack_chunk
from megacache._bundle.artifacts import ARTIFACTS_PART
from megacache._bundle.chunk import grouped
from tests.kit.builders import artifacts, payload


def test_chunk_is_named_by_its_stored_bytes() -> None:
    """The reference to a chunk states its part, its digest, and both its sizes."""
    made = payload(artifacts(3))
    chunk = pack_chunk(made)
    assert chunk.ref.part == ARTIFACTS_PART
    assert chunk.ref.digest == Digest.of(chunk.stored)
    assert (chunk.ref.stored_size, chunk.ref.raw_size) == (len(chunk.stored), len(made.build()))
    assert open_chunk(chunk.ref, chunk.stored) == made.build()


@given(st.lists(st.integers(0, 3000), max_size=20), st.integers(200, 2000))
def test_groups_keep_to_their_size(items: list[int], limit: int) -> None:
    """In the order given, each group takes as many items as fit; only one alone may make it larger."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("megacache._bundle.chunk.CHUNK_SIZE", limit)
        groups = list(grouped(items, int))
    assert [one for members in groups for one in members] == items
    assert all(len(members) == 1 or sum(members) <= limit for members in groups)
    assert all(sum(members) + following[0] > limit for members, following in pairwise(groups))
