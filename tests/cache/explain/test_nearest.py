"""The nearest graph is found, and what differs from it is named in few words."""

import pytest

from megacache._bundle import Component, GraphKey
from megacache._cache.explain.nearest import differences, nearest

ROLES = {
    "inference": {"fx_kwargs[is_backward]": "False", "fx_kwargs[is_inference]": "True"},
    "forward": {"fx_kwargs[is_backward]": "False", "fx_kwargs[is_inference]": "False"},
    "backward": {"fx_kwargs[is_backward]": "True", "fx_kwargs[is_inference]": "False"},
}


def graph(key: str = "f1", /, *, role: str = "", kind: str = "inductor", **components: str) -> GraphKey:
    """Make a graph's key whose values are their own digests."""
    every = {"example_inputs[0]" if name == "input" else name: text for name, text in components.items()}
    every.update(ROLES.get(role, {}))
    return GraphKey(kind=kind, key=key, components={name: Component(text, text) for name, text in every.items()})


def tensor(
    *, shape: str = "8, 16", stride: str = "16, 1", dtype: str = "float32", index: int = 0, extra: str = ""
) -> str:
    """Describe a tensor as PyTorch does."""
    return (
        f"TensorMetadata(dtype=torch.{dtype}, shape=torch.Size([{shape}]), stride=({stride}), "
        f"device=device(type='cuda', index={index}), layout=torch.strided, storage_bytes={extra or None})"
    )


def told(here: GraphKey, there: GraphKey) -> list[tuple[str, str, str]]:
    """Give the differences as tuples."""
    return [(d.name, d.here, d.there) for d in differences(here, there)]


def test_same_code_comes_first() -> None:
    """A graph with the same code is nearer than one with fewer other differences."""
    published = [graph("f2", gm="b", a="1", b="1"), graph("f3", gm="a", a="2", b="2")]
    found = nearest(graph(gm="a", a="1", b="1"), published)
    assert found is not None
    assert found.key == "f3"


def test_fewest_differences_come_next() -> None:
    """Of graphs with the same code, that with the fewest differences is nearest; of equals, the first by key."""
    published = [
        graph("f4", gm="a", a="2", b="2"),
        graph("f3", gm="a", a="2", b="1"),
        graph("f2", gm="a", a="3", b="1"),
    ]
    found = nearest(graph(gm="a", a="1", b="1"), published)
    assert found is not None
    assert found.key == "f2"


def test_other_code_is_compared_within_the_role_and_by_how_it_begins() -> None:
    """Without the same code, a graph of the same role is nearer, and of these one whose code is alike for longer."""
    published = [
        graph("f2", role="forward", gm="a\nb\nc"),
        graph("f3", role="backward", gm="a\nx\ny"),
        graph("f4", role="backward", gm="a\nb\ny"),
    ]
    found = nearest(graph(role="backward", gm="a\nb\nc\nd"), published)
    assert found is not None
    assert found.key == "f4"


def test_of_many_the_most_promising_are_compared() -> None:
    """Among hundreds of graphs, those whose code begins like that of the missed one are looked at more closely."""
    published = [graph(f"f{n:03}", gm=f"{n}", a="1") for n in range(200)] + [graph("fx", gm="abcd", a="1")]
    found = nearest(graph(gm="abce", a="1"), published)
    assert found is not None
    assert found.key == "fx"


def test_nothing_is_nearest_among_other_kinds() -> None:
    """A graph is compared with graphs of its own kind, and with nothing if there are none."""
    assert nearest(graph(), []) is None
    assert nearest(graph(), [graph("a1", kind="aot_autograd")]) is None


@pytest.mark.parametrize(
    ("here", "there", "expected"),
    [
        (tensor(), tensor(shape="4, 16"), [("example_inputs[0].shape", "[8, 16]", "[4, 16]")]),
        (tensor(index=1), tensor(), [("example_inputs[0].device", "type='cuda', index=1", "type='cuda', index=0")]),
        (tensor(dtype="bfloat16"), tensor(), [("example_inputs[0].dtype", "bfloat16", "float32")]),
        (tensor(extra="8"), tensor(extra="9"), [("example_inputs[0].storage_bytes", "8", "9")]),
        (
            tensor(extra="8", shape="s0, 4", stride="4, 1"),
            tensor(extra="9"),
            [("example_inputs[0].shape", "[s0, 4]", "[8, 16]"), ("example_inputs[0].stride", "(4, 1)", "(16, 1)")],
        ),
        (tensor(), "", [("example_inputs[0]", "float32 [8, 16] type='cuda', index=0", "")]),
        ("TensorMetadata(", "TensorMetadata(x)", [("example_inputs[0]", "TensorMetadata(", "TensorMetadata(x)")]),
        ("TensorMetadata(a=1", "TensorMetadata(a=1)", [("example_inputs[0].a", "", "1")]),
    ],
)
def test_tensors_are_compared_by_their_parts(here: str, there: str, expected: list[tuple[str, str, str]]) -> None:
    """Of two inputs shape, stride, type and device are named if they differ, and other parts only if none of these."""
    assert told(graph(input=here), graph(input=there) if there else graph()) == expected


@pytest.mark.parametrize(
    ("here", "there", "line"),
    [
        ("f()\n  a = 1\n  b = 2", "f()\n  a = 1\n  b = 3", ("b = 2", "b = 3")),
        ("f()\n  a = 1", "f()\n  a = 1\n  b = 3", ("", "b = 3")),
    ],
)
def test_code_is_told_by_its_first_line_that_differs(here: str, there: str, line: tuple[str, str]) -> None:
    """Of two graphs' code the first line that differs is shown."""
    assert told(graph(gm=here), graph(gm=there)) == [("gm", *line)]


def test_same_text_with_other_digests_is_told_apart() -> None:
    """Where paths were taken out of both values, or constants do not show in the code, the difference is still told."""
    one = GraphKey(kind="inductor", key="f1", components={"a": Component("x1", "<path>"), "gm": Component("x", "f()")})
    two = GraphKey(kind="inductor", key="f2", components={"a": Component("y2", "<path>"), "gm": Component("y", "f()")})
    code, setting = told(one, two)
    assert code[0] == "gm"
    assert "the same 1 lines" in code[1]
    assert setting == ("a", "<path> [x1]", "<path> [y2]")


def test_what_follows_from_the_role_is_not_told() -> None:
    """Where the roles differ, code and inputs do as well, and say nothing."""
    here = graph(role="forward", gm="a", input=tensor(), threads="1")
    there = graph(role="inference", gm="b", threads="2")
    assert [name for name, *_ in told(here, there)] == ["fx_kwargs[is_inference]", "threads"]


def test_code_and_inputs_come_first_in_their_order() -> None:
    """Differences are told with the code first, then the inputs by number, then the rest by name."""
    names = ["default_dtype", "example_inputs[10]", "example_inputs[9]", "gm", "cache_key_tag"]
    here, there = (graph(**dict.fromkeys(names, value)) for value in "ab")
    assert [name for name, *_ in told(here, there)] == [
        "gm",
        "example_inputs[9]",
        "example_inputs[10]",
        "cache_key_tag",
        "default_dtype",
    ]


def test_what_a_store_holds_is_shown_in_one_short_line() -> None:
    """A text from a store is cut, and nothing in it reaches a terminal as a command."""
    ((name, here, there),) = told(graph(**{"a\x1b[2J": "x"}), graph(**{"a\x1b[2J": "\x1b[31m\n" + "y" * 500}))
    assert (name.isprintable(), here, there.isprintable(), len(there)) == (True, "x", True, 200)
