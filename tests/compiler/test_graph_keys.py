"""A graph's key is read from what PyTorch recorded, without running any of it."""

import os
import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from megacache._compiler import graph_key, graphs_below, guard
from megacache.errors import CompilerError
from tests.kit.builders import UNHURRIED, Graph, artifact

DIGEST = "a2z7" * 12 + "abc"
KEY = "f" + DIGEST


def line(name: str, text: str) -> str:
    """Write a line as PyTorch does."""
    return f"[{DIGEST}] {name}: {text}"


@pytest.mark.parametrize("protocol", [4, 5])
@pytest.mark.parametrize("count", [1, 2, 640, 1_000, 2_500])
def test_all_lines_are_read(protocol: int, count: int) -> None:
    """Every component is read, also where pickle writes a long list in several batches."""
    lines = [line(f"inductor_config[{n}]", str(n)) for n in range(count)]
    key = graph_key(artifact(KEY, pickle.dumps(Graph(lines), protocol=protocol)))
    assert key is not None
    assert {name: c.text for name, c in key.components.items()} == {
        f"inductor_config[{n}]": str(n) for n in range(count)
    }
    assert {c.digest for c in key.components.values()} == {DIGEST}
    assert (key.kind, key.key, key.guard) == ("inductor", KEY, "")


def test_values_of_all_lengths_are_read() -> None:
    """A value may be empty, have many lines, and hold colons and brackets."""
    texts = {"cache_key_tag": "", "gm": "f()\n\ndef forward(x):\n  return x", "a[0]": "[b] c: d", "long": "x" * 100_000}
    key = graph_key(artifact(KEY, pickle.dumps(Graph([line(*pair) for pair in texts.items()], "s0 <= 64"))))
    assert key is not None
    assert {name: component.text for name, component in key.components.items()} == texts
    assert key.guard == "s0 <= 64"


@pytest.mark.parametrize("content", [b"", b"no pickle", pickle.dumps(Graph(None)), pickle.dumps(Graph([]))])
def test_artifact_without_lines_has_no_components(content: bytes) -> None:
    """What holds no lines is no fault."""
    assert graph_key(artifact(KEY, content)) is None


def test_nothing_in_a_pickle_is_run(tmp_path: Path) -> None:
    """A pickle that would run a command when it is loaded runs nothing when it is read."""
    trap = tmp_path / "sprung"

    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(trap),)

    graph = Graph([line("gm", "x")])
    graph.__dict__.update(first=Trap(), zlast=Trap())
    key = graph_key(artifact(KEY, pickle.dumps(graph)))
    assert key is not None
    assert not trap.exists()


@pytest.mark.parametrize("protocol", [4, 5])
@pytest.mark.parametrize(
    ("guards", "read"),
    [
        ([None], ""),
        (["s0 <= 64"], "s0 <= 64"),
        ([None, None], ""),
        (["s0 <= 64", None], "s0 <= 64\n"),
        ([None, "s0 <= 64"], "\ns0 <= 64"),
        (["s0 <= 64"] * 2, "s0 <= 64\ns0 <= 64"),
    ],
)
def test_guards_of_all_that_an_artifact_holds_are_read(guards: list[str | None], read: str, protocol: int) -> None:
    """An entry that holds its graphs has their guards beside its own: pickle writes the name, and equal texts, once."""
    whole = {"lines": list(map(str, range(300))), "graphs": [Graph([line("gm", "x")], one) for one in guards]}
    assert guard(artifact("a1", pickle.dumps(whole, protocol=protocol), kind="aot_autograd")) == read


@pytest.mark.parametrize(
    "content", [b"", b"no pickle", pickle.dumps({}), pickle.dumps({"guards_expr": 42}), pickle.dumps(["guards_expr"])]
)
def test_guard_that_cannot_be_read_is_not_known(content: bytes) -> None:
    """What holds no guard, or one that is no text, is not taken for an artifact without a condition."""
    assert guard(artifact(KEY, content)) is None


@UNHURRIED
@given(st.binary(max_size=80))
def test_guard_cut_off_by_anything_is_read_or_not_known(rest: bytes) -> None:
    """Whatever follows the attribute's name, nothing is raised."""
    start = pickle.dumps({"guards_expr": None})
    found = guard(artifact(KEY, start[: start.index(b"N")] + rest))
    assert found is None or isinstance(found, str)


def test_graphs_below_an_entry_are_found() -> None:
    """The keys of an entry's forward and backward are found among everything else it holds."""
    forward, backward = KEY, "f" + DIGEST[::-1].replace("1", "2")
    entry = {"forward": (forward, [line("gm", "x")]), "backward": (backward, []), "other": "a" + DIGEST}
    assert graphs_below(artifact("a1", pickle.dumps(entry), kind="aot_autograd")) == {forward, backward}


@UNHURRIED
@given(st.binary(max_size=80))
def test_lines_cut_off_by_anything_are_refused_or_read(rest: bytes) -> None:
    """Whatever follows the attribute's name, the answer is a key, None, or a `CompilerError`."""
    try:
        graph_key(artifact(KEY, b"\x8c\x1b_fx_graph_cache_debug_lines" + rest))
    except CompilerError as error:
        assert "key" in str(error)  # noqa: PT017 - raising is one of the right answers
