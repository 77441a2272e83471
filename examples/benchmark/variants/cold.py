"""Nothing to start from."""

from examples.benchmark.variants.variant import Variant


class Cold(Variant):
    """Compile everything."""

    name = "cold"
    told = "nothing to start from"
