"""Leave out a bundle that two processes in a row had loaded when they died.

`markers` tell what processes had loaded that are gone, `rolls` what living ones have loaded, `notes` what has been
cleared, and what could not be used; `guard` writes those of this process.
"""

from megacache._cache.crash_guard.guard import (
    CrashGuard,
    arm_all,
    disarm_all,
    disarm_all_later,
    guard_beside,
    guards,
    install,
)
from megacache._cache.crash_guard.markers import Markers

__all__ = [
    "CrashGuard",
    "Markers",
    "arm_all",
    "disarm_all",
    "disarm_all_later",
    "guard_beside",
    "guards",
    "install",
]
