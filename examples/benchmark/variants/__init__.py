"""All ways to start that are compared, a module for each; how each peer is set up is said there."""

from collections.abc import Mapping

from examples.benchmark.variants.b10 import B10
from examples.benchmark.variants.cold import Cold
from examples.benchmark.variants.copied import Copied, Floor
from examples.benchmark.variants.fal import Fal
from examples.benchmark.variants.megacache import Megacache, MegacacheS3
from examples.benchmark.variants.plain import Plain
from examples.benchmark.variants.redis import Redis
from examples.benchmark.variants.variant import Stored, Variant, triton_folder

__all__ = ["OURS", "PEERS", "VARIANTS", "Stored", "Variant", "missing", "triton_folder"]

VARIANTS: Mapping[str, Variant] = {
    variant.name: variant
    for variant in (Cold(), Plain(), Fal(), B10(), Copied(), Redis(), Megacache(), MegacacheS3(), Floor())
}
"""By name, in the order of the report."""

OURS = ("megacache", "megacache-s3")
PEERS = tuple(name for name in VARIANTS if name not in {"cold", "floor", *OURS})
"""What others offer."""


def missing() -> Mapping[str, str]:
    """Tell for each variant that cannot run here what is not installed."""
    return {name: lacked for name, variant in VARIANTS.items() if (lacked := variant.missing())}
