"""PyTorch's own API: https://docs.pytorch.org/tutorials/recipes/torch_compile_caching_tutorial.html."""

from collections.abc import Iterator
from contextlib import contextmanager

from examples.benchmark.variants.variant import Stored, Variant

_BLOB = "blob.bin"


class Plain(Variant):
    """Keep one blob in a file."""

    name = "plain"
    told = "`torch.compiler.load_cache_artifacts` of the blob of `save_cache_artifacts`, in a file"

    @contextmanager
    def prepared(self, stored: Stored) -> Iterator[None]:
        """Save the blob."""
        import torch

        yield
        saved = torch.compiler.save_cache_artifacts()
        if saved is None:
            raise RuntimeError("torch has recorded nothing")
        stored.path(_BLOB).write_bytes(saved[0])

    @contextmanager
    def started(self, stored: Stored) -> Iterator[None]:
        """Load it."""
        import torch

        if torch.compiler.load_cache_artifacts(stored.path(_BLOB).read_bytes()) is None:
            raise RuntimeError("torch refused its own blob")
        yield
