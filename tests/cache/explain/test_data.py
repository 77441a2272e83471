"""Explain data travels as a part of its own, which nothing depends on."""

import base64
import pickle
from typing import Any

import pytest

from megacache._bundle import (
    EXPLAIN_PART,
    Artifact,
    Digest,
    Payload,
    chunks_of,
    describe,
    identify_artifact,
    pack_chunk,
)
from megacache._cache import ExplainStatus, Explanation, PublishResult, PublishStatus
from megacache._cache.explain import explain_payloads, misses
from megacache._cache.explain.data import collect, explain_chunks
from megacache._cache.explain.misses import Explaining
from megacache._cache.publish import Publication
from megacache._cache.recording import Found, Recorded
from megacache._cache.session import Session
from megacache._catalog import Catalog, Order, Places
from megacache._runtime import Deadline
from megacache._store import Store
from megacache.errors import BundleError
from tests.kit.builders import Bundle, Graph, artifact, call_on, environment, open_store, payload, upload

CODE = "f()\n\n\ndef forward(self, a):\n    b = a + 1;  a = None\n    return b\n# To see more"


def graph(key: str, **values: str) -> Artifact:
    """Make an artifact with the lines of its key; a digest for each value."""
    lines = [
        f"[{base64.b32encode(Digest.of(text.encode()).hex.encode()).decode().lower()[:51]}] {name}: {text}"
        for name, text in values.items()
    ]
    return artifact(key, pickle.dumps(Graph(lines)))


def published(*artifacts: Artifact, extra: bytes | None = None, lost: bool = False) -> Store:
    """Publish artifacts, with explain data of their own, other data in its place, or a chunk that is gone."""
    store = open_store()
    wanted = list(explain_payloads(artifacts))
    if extra is not None:
        wanted = [Payload(part=EXPLAIN_PART, weight=len(extra), build=lambda: extra)]
    chunks = tuple(pack_chunk(one) for one in [payload(artifacts), *wanted])
    manifest = describe(
        environment=environment(),
        artifacts=[identify_artifact(one) for one in artifacts],
        chunks=[chunk.ref for chunk in chunks],
        parents=(),
        labels={},
    )
    upload(store, Bundle(manifest=manifest, chunks=chunks[:1] if lost else chunks))
    return store


def explained(store: Store, *recorded: Artifact) -> Explanation:
    """Explain what a process has recorded."""
    return Explaining(Places.only(store), environment(), Session(), recorded).run()


def test_only_graphs_are_described() -> None:
    """Artifacts of other kinds, and graphs without lines, have no explain data; without any there is no chunk."""
    others = [artifact("a1", bytes(graph("f1", gm="x").content), kind="aot_autograd"), artifact("f2", b"no lines")]
    assert explain_payloads(others) == ()
    assert [key.key for key in collect([*others, graph("f1", gm="x")])] == ["f1"]


def test_values_are_made_short_and_readable() -> None:
    """Code loses what says nothing, a long value its end, and bytes their text; equal digests stay equal."""
    (key,) = collect([graph("f1", gm=CODE, long="x" * 5_000, torch_version="\0\1\ufffd", path="/home/x")])
    assert key.components["gm"].text == "f()\ndef forward(self, a):\n    b = a + 1\n    return b"
    assert len(key.components["long"].text) == 1_000
    assert key.components["torch_version"].text == ""
    assert key.components["path"].text == "<path>"


def test_code_is_kept_up_to_a_bound() -> None:
    """Of a very large graph the beginning is kept."""
    (key,) = collect([graph("f1", gm="    b = a + 1\n" * 10_000)])
    assert 30_000 < len(key.components["gm"].text) <= 32_000


def test_explain_data_of_one_bundle_explains_a_graph_of_another_process() -> None:
    """A graph that is not in the store is compared with one that is."""
    found = explained(published(graph("f1", gm="x", a="1")), graph("f2", gm="x", a="2"))
    assert found.status is ExplainStatus.GRAPHS
    assert [(d.name, d.here, d.there) for d in found.misses[0].differences] == [("a", "2", "1")]
    assert (found.misses[0].key, found.misses[0].nearest, found.graphs) == ("f2", "f1", 1)


def test_bundle_of_an_older_publisher_is_named() -> None:
    """Without explain data the miss is told, and that nothing is known of it."""
    found = explained(published(artifact("f1", b"no lines")), graph("f2", gm="x"))
    assert "holds explain data" in found.misses[0].reason
    assert "without explain data" in found.warnings[0]


@pytest.mark.parametrize("extra", [b"", b"\xc1", pickle.dumps({"format": [1, 0]}), b"\x91" * 100_000])
def test_hostile_explain_data_explains_nothing(extra: bytes) -> None:
    """Explain data that is none is a warning; what can be told without it is told."""
    found = explained(published(graph("f1", gm="x"), extra=extra), graph("f2", gm="x"))
    assert found.status is ExplainStatus.GRAPHS
    assert "could not be read" in found.warnings[0]


def test_lost_explain_data_is_a_warning() -> None:
    """A chunk of explain data that is gone is a warning."""
    found = explained(published(graph("f1", gm="x"), lost=True), graph("f2", gm="x"))
    assert found.status is ExplainStatus.GRAPHS
    assert "could not be read" in found.warnings[0]


def test_too_much_explain_data_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Explain data beyond a bound is not fetched, and that is said."""
    monkeypatch.setattr("megacache._cache.explain.misses._MAX_BYTES", 10)
    found = explained(published(graph("f1", gm="x")), graph("f2", gm="x"))
    assert "was left out" in found.warnings[0]


def test_graphs_are_named_when_time_is_over() -> None:
    """Graphs that there is no time to compare are told as missed, and that nothing was compared."""
    names = frozenset({("inductor", "f1")})
    (miss,) = misses._missed_graphs([graph("f2", gm="x")], names, [], Deadline(at=0.0, seconds=1.0))
    assert (miss.key, miss.reason) == ("f2", "it was not compared: time ran out")


def test_bundle_that_this_process_found_unusable_holds_nothing() -> None:
    """What a warm start has refused is not called published, nor is it said that nothing was published."""
    store = published(graph("f1", gm="x"))
    session = Session()
    session.rule_out(Catalog.of(store, environment()).list().visible)
    found = Explaining(Places.only(store), environment(), session, [graph("f1", gm="x")]).run()
    assert found.status is ExplainStatus.UNAVAILABLE
    assert "can be used" in found.reason
    with pytest.raises(BundleError):
        found.raise_for_status()


def test_bundle_without_graphs_needs_no_explain_data() -> None:
    """A bundle that holds no graph of Inductor lacks nothing."""
    found = explained(published(artifact("a1", kind="aot_autograd")), graph("f2", gm="x"))
    assert found.warnings == ()


def test_warm_start_does_not_fetch_it() -> None:
    """Of a bundle whose explain data is gone, everything else is delivered."""
    store = published(graph("f1", gm="x"), lost=True)
    catalog = Catalog.of(store, environment())
    (done,) = catalog.read(catalog.list().visible)
    assert len(explain_chunks(done.result())) == len(chunks_of(done.result(), files=True)) == 1
    (delivery,) = catalog.deliver([Order(manifest=done.result(), files=True)])
    assert (delivery.fault, delivery.last, len(delivery.contents)) == (None, True, 1)


def publish(store: Store, *artifacts: Artifact) -> tuple[PublishResult, Session]:
    """Publish artifacts as if PyTorch had recorded them."""
    found = Found(artifacts={identify_artifact(one): one for one in artifacts})
    recorded = Recorded(found=found, guard={}, known=False, probes=(), environment=environment(), warnings=("before",))
    session = Session()
    return Publication(call_on(store), recorded, session).run(), session


def test_publication_carries_it_and_does_not_count_it() -> None:
    """A publication adds explain data, whose bytes are no artifacts'."""
    store = open_store()
    result, session = publish(store, graph("f1", gm="x" * 10_000))
    assert (result.status, result.warnings, session.written) == (
        PublishStatus.PUBLISHED,
        ("before",),
        set(result.bundles),
    )
    stored = {entry.key: entry.size for entry in store.list() if entry.key.endswith(".zst")}
    assert len(stored) == 2
    assert result.bytes_stored in stored.values()


def test_publication_goes_on_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever goes wrong with explain data, the artifacts are published, with a warning."""

    def fail(_: Any) -> None:
        raise RecursionError("deep")

    monkeypatch.setattr("megacache._cache.publish.explain_payloads", fail)
    result, _ = publish(open_store(), graph("f1", gm="x"))
    assert result.status is PublishStatus.PUBLISHED
    assert result.warnings == ("before", "no explain data was published: RecursionError: deep")
