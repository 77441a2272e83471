"""Content becomes a chunk, and comes out of it only if it is as declared."""

from megacache._bundle import PART
from megacache._chunk import open_chunk, pack_chunk
from megacache._digest import Digest
from tests.builders import artifacts, payload


def test_chunk_is_named_by_its_stored_bytes() -> None:
    """The reference to a chunk states its part, its digest, and both its sizes."""
    made = payload(artifacts(3))
    chunk = pack_chunk(made)
    assert chunk.ref.part == PART
    assert chunk.ref.digest == Digest.of(chunk.stored)
    assert (chunk.ref.stored_size, chunk.ref.raw_size) == (len(chunk.stored), len(made.build()))
    assert open_chunk(chunk.ref, chunk.stored) == made.build()
