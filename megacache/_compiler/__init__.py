"""The one door to torch.

Nothing here is imported from torch before a function is called, and no private name of torch is used outside this
package.
"""

from megacache._compiler import roots
from megacache._compiler.adoption import adopt, is_kernel
from megacache._compiler.artifacts import (
    FOLDER,
    UNDO_SECONDS,
    Loaded,
    forget,
    forget_exactly,
    record,
    take_back,
    unrecorded,
)
from megacache._compiler.code import for_any_cpu
from megacache._compiler.collector import defer_while_compiling, full_collections_deferred
from megacache._compiler.compilations import compiling, on_compilations
from megacache._compiler.conditions import Operators, called_operators, definitions, load_if_met
from megacache._compiler.counters import Activity, Lookups, activity
from megacache._compiler.door import compile_lock
from megacache._compiler.events import watch
from megacache._compiler.facts import current_environment, toolchain
from megacache._compiler.files import Located, build_of, file_roots, lists_others, remove, restore, used_files
from megacache._compiler.folders import Folder, Folders, register_folders
from megacache._compiler.graph_keys import graph_key, graphs_below, guard
from megacache._compiler.job import Board, Job, job
from megacache._compiler.opaque import look_into_inner_graphs
from megacache._compiler.probes import believe, passed_probes
from megacache._compiler.state import (
    cache_folder,
    current_device,
    import_inductor,
    loading_warnings,
    recording_warnings,
    switched_off,
    use_device,
    writable_cache_folder,
)
from megacache._compiler.variables import RECORDED as RECORDED_VARIABLES

__all__ = [
    "FOLDER",
    "RECORDED_VARIABLES",
    "UNDO_SECONDS",
    "Activity",
    "Board",
    "Folder",
    "Folders",
    "Job",
    "Loaded",
    "Located",
    "Lookups",
    "Operators",
    "activity",
    "adopt",
    "believe",
    "build_of",
    "cache_folder",
    "called_operators",
    "compile_lock",
    "compiling",
    "current_device",
    "current_environment",
    "defer_while_compiling",
    "definitions",
    "file_roots",
    "for_any_cpu",
    "forget",
    "forget_exactly",
    "full_collections_deferred",
    "graph_key",
    "graphs_below",
    "guard",
    "import_inductor",
    "is_kernel",
    "job",
    "lists_others",
    "load_if_met",
    "loading_warnings",
    "look_into_inner_graphs",
    "on_compilations",
    "passed_probes",
    "record",
    "recording_warnings",
    "register_folders",
    "remove",
    "restore",
    "roots",
    "switched_off",
    "take_back",
    "toolchain",
    "unrecorded",
    "use_device",
    "used_files",
    "watch",
    "writable_cache_folder",
]
