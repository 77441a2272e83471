"""How many requests a warm start makes of a store with many small bundles, before and after they are merged."""

import time

import pytest

from megacache._catalog import Compaction, Inventory, Terms, plan_retention
from megacache._runtime import Deadline, unordered
from megacache._store import Store
from megacache._trust import Signing
from tests.kit.builders import artifact, bundle, noise, upload
from tests.kit.servers.moto import MotoServer
from tests.kit.torchless import Compiler

BUNDLES = 1_000
SECONDS = 300.0


@pytest.mark.nightly
def test_merged_bundles_cost_three_requests(
    moto_server: MotoServer, compiler: Compiler, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A thousand bundles cost a LIST and two requests each, and merged a LIST, a manifest and a chunk.

    The names of those that are superseded are listed, 1,000 a request, until they are deleted.
    """
    url, options = f"{moto_server.server.url}/{name}", moto_server.server.storage_options
    store = Store.open(url, storage_options=options, deadline=Deadline.after(SECONDS))

    def warm() -> int:
        moto_server.forget()
        assert len(compiler.warm(url, options, SECONDS).bundles) in {1, BUNDLES}
        return len(moto_server.requests())

    made = [bundle([artifact(f"key{n}", noise(500, n))]) for n in range(BUNDLES)]
    for uploaded in unordered(lambda one: upload(store, one), made, deadline=store.deadline, doing="uploading"):
        uploaded.result()
    before = warm()
    moto_server.forget()
    (holding,) = Inventory.of(store).holdings
    job = Compaction(store, holding, Signing())
    done = job.apply(job.plan(), lambda _: None)
    merging = len(moto_server.requests())
    merged = warm()
    for plan in plan_retention(store, Inventory.of(store).holdings, Terms(now=time.time(), grace=0)):
        plan.apply(store, lambda _: None)
    after = warm()
    told = f"{BUNDLES:,} bundles: {before:,} requests a warm start, {merged} once merged, {after} once deleted"
    with capsys.disabled():
        print(f"\n{told}; {merging:,} requests merged them")
    assert (len(done.merged), before, merged, after) == (1, 2 * BUNDLES + 1, 5, 3)
