"""The one door to torch.

Nothing here is imported from torch before a function is called, and no private name of torch is used outside this
package.
"""

from megacache._compiler._adoption import adopt
from megacache._compiler._compilations import current_device, on_compilations, use_device
from megacache._compiler._components import graph_key, graphs_below
from megacache._compiler._counters import Activity, activity
from megacache._compiler._facts import current_environment
from megacache._compiler._libraries import file_roots, used_files
from megacache._compiler._memory import Loaded, forget, forget_exactly, load, record, unrecorded
from megacache._compiler._probes import passed_probes
from megacache._compiler._state import (
    cache_folder,
    loading_warnings,
    recording_warnings,
    switched_off,
    writable_cache_folder,
)
from megacache._compiler._toolchain import toolchain
from megacache._compiler._watch import watch

__all__ = [
    "Activity",
    "Loaded",
    "activity",
    "adopt",
    "cache_folder",
    "current_device",
    "current_environment",
    "file_roots",
    "forget",
    "forget_exactly",
    "graph_key",
    "graphs_below",
    "load",
    "loading_warnings",
    "on_compilations",
    "passed_probes",
    "record",
    "recording_warnings",
    "switched_off",
    "toolchain",
    "unrecorded",
    "use_device",
    "used_files",
    "watch",
    "writable_cache_folder",
]
