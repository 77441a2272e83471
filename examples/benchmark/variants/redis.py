"""PyTorch's remote cache, set up as its own documentation says.

https://docs.pytorch.org/tutorials/recipes/torch_compile_caching_configuration_tutorial.html
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from examples.benchmark.variants.variant import Stored, Variant

_CACHES = ("FX_GRAPH", "AUTOGRAD", "AUTOTUNE")


class Redis(Variant):
    """Let the compiler ask a redis server for each graph it does not find in its folder.

    The server runs on the loopback interface and keeps all in memory. The settings are part of the compiler's, so it
    compiles in a process of its own.
    """

    name = "redis"
    told = "PyTorch's remote cache: `TORCHINDUCTOR_FX_GRAPH_REMOTE_CACHE` and its kin on a redis server on loopback"
    preparation = "redis"
    packages = ("redis",)
    programs = ("redis-server",)

    def variables(self, stored: Stored, tmp: Path) -> Mapping[str, str]:
        """Switch on each remote cache that the documentation names."""
        del tmp
        switches = {f"TORCHINDUCTOR_{cache}_REMOTE_CACHE": "1" for cache in _CACHES}
        server = urlsplit(stored.redis_url)
        place = {"TORCHINDUCTOR_REDIS_HOST": server.hostname, "TORCHINDUCTOR_REDIS_PORT": server.port}
        return switches | {name: str(part) for name, part in place.items()}

    @contextmanager
    def started(self, stored: Stored) -> Iterator[None]:
        """Raise afterwards unless every graph came from the server."""
        del stored
        yield
        from torch._inductor.remote_cache import cache_stats

        for cache in ("RemoteFxGraphCache", "RemoteAOTAutogradCache"):
            found = cache_stats._stats[cache]
            if not found.hit or found.miss or found.exception:
                raise RuntimeError(f"{cache}: {found}")
