"""Markers by which a start learns what earlier processes had loaded when they died."""

from megacache._cache.crash_guard.guard import CrashGuard, disarm_all, guard_beside, install
from megacache._cache.crash_guard.markers import Markers

__all__ = ["CrashGuard", "Markers", "disarm_all", "guard_beside", "install"]
