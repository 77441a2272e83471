"""Say why a warm start found nothing: how the nearest environment that others have published for differs."""

from megacache._bundle import Environment
from megacache._catalog import nearest_other
from megacache._runtime import counted
from megacache._store import Store
from megacache._trust import TrustPolicy
from megacache.errors import MegacacheError

_SECONDS = 5.0


def why_nothing(store: Store, environment: Environment, policy: TrustPolicy | None) -> tuple[str, tuple[str, ...]]:
    """Give a sentence, and the facts that differ; what is asked of the store takes five seconds at most."""
    nothing = f"nothing is published for {environment.device} ({environment.fingerprint})"
    if store.deadline.remaining() <= _SECONDS:
        return nothing, ()
    try:
        nearest, others = nearest_other(store.within(store.deadline.sooner(_SECONDS)), environment, policy)
    except MegacacheError:
        return nothing, ()
    if nearest is None:
        return nothing, ()
    differing = environment.mismatches(nearest)
    of = f"The nearest of {counted(others, 'other environment')} differs in {counted(len(differing), 'fact')}"
    return f"{nothing}. {of}: {'; '.join(map(str, differing))}", tuple(one.fact for one in differing)
