"""Leave out a bundle that two processes in a row had loaded when they died.

`markers` tell what processes had loaded that are gone, `rolls` what living ones have loaded, `notes` what has been
cleared; `guard` writes those of this process.
"""

from megacache._cache.crash_guard.guard import CrashGuard, disarm_all, guard_beside, install
from megacache._cache.crash_guard.markers import Markers

__all__ = ["CrashGuard", "Markers", "disarm_all", "guard_beside", "install"]
