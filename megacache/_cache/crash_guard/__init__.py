"""Markers by which a start learns what earlier processes had loaded when they died."""

from megacache._cache.crash_guard import guard
from megacache._cache.crash_guard.guard import CrashGuard, disarm_all, install
from megacache._cache.crash_guard.markers import Markers
from megacache._cache.crash_guard.store_markers import StoreMarkers
from megacache._cache.crash_guard.suspects import Suspicions

__all__ = ["CrashGuard", "Markers", "StoreMarkers", "Suspicions", "disarm_all", "guard", "install"]
