"""The one door to torch.

Nothing here is imported from torch before a function is called, and no private name of torch is used outside this
package.
"""

from megacache._compiler._components import graph_key, graphs_below
from megacache._compiler._facts import current_environment
from megacache._compiler._memory import Loaded, load, record
from megacache._compiler._state import (
    cache_folder,
    loading_warnings,
    recording_warnings,
    switched_off,
    writable_cache_folder,
)

__all__ = [
    "Loaded",
    "cache_folder",
    "current_environment",
    "graph_key",
    "graphs_below",
    "load",
    "loading_warnings",
    "record",
    "recording_warnings",
    "switched_off",
    "writable_cache_folder",
]
