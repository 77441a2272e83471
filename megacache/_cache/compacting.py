"""Merge the bundles of this environment after a publication, where they have become too many."""

from typing import Any

from megacache._bundle import Environment, environment_prefix
from megacache._catalog import Compaction, holding_of
from megacache._runtime import quiet
from megacache._store import Store, without_secrets
from megacache._trust import Signing
from megacache.errors import MegacacheError, SettingsError


def checked_count(count: Any) -> int | None:
    """Read the number of bundles above which they are merged."""
    if count is None or (isinstance(count, int) and not isinstance(count, bool) and count > 0):
        return count
    msg = f"compact_above is {count!r:.40}"
    raise SettingsError(msg, hint="give a number of bundles, or None to merge none")


def compact(store: Store, environment: Environment, signing: Signing) -> str:
    """Merge what can be merged; say why not all of it was. The publication has succeeded whatever comes of this."""
    prefix = environment_prefix(environment.device, environment.fingerprint)
    try:
        job = Compaction(store, holding_of(store, prefix), signing)
        done = job.apply(job.plan(), quiet(None))
    except MegacacheError as error:
        return f"published, but the bundles were not merged: {error}"
    except Exception as error:  # noqa: BLE001 - as where memory runs out
        return f"published, but the bundles were not merged: {without_secrets(f'{type(error).__name__}: {error}')}"
    return f"bundle {done.failed[0][0]} was not merged: {done.failed[0][1]}" if done.failed else ""
