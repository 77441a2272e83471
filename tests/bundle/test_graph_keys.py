"""The document that holds what graphs' keys were made of is read as written, and strictly."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megacache._bundle import Component, GraphKey, pack, pack_keys, parse_keys
from megacache.errors import FormatError, UnsupportedFormatError
from tests.kit.builders import UNHURRIED, any_text

names = st.sampled_from(["gm", "example_inputs[0]", "fx_kwargs[is_backward]", "inductor_config[a]", "default_dtype"])
components = st.dictionaries(names | any_text, st.builds(Component, any_text, any_text), max_size=6)
keys = st.builds(GraphKey, kind=any_text, key=any_text, components=components, guard=any_text)


def graph(key: str = "f1", /, **components: str) -> GraphKey:
    """Make a graph's key whose values are their own digests."""
    return GraphKey(kind="inductor", key=key, components={n: Component(t[:16], t) for n, t in components.items()})


def document(**changed: object) -> bytes:
    """Write a document by hand, with some fields changed."""
    plain = {"format": [1, 0], "values": [["d", "True"]], "settings": [{"x": 0}], "graphs": [["k", "f", "", 0, {}]]}
    return pack({**plain, **changed})


@UNHURRIED
@given(st.lists(keys, max_size=4))
def test_what_is_written_is_read(written: list[GraphKey]) -> None:
    """Any keys come back as they were, in their order."""
    assert parse_keys(pack_keys(written)) == tuple(written)


@settings(UNHURRIED, max_examples=500)
@given(st.binary(max_size=60))
def test_any_other_bytes_raise_a_format_error(data: bytes) -> None:
    """Arbitrary bytes raise `FormatError`, and no other exception."""
    with pytest.raises(FormatError):
        parse_keys(data)


@UNHURRIED
@given(st.data())
def test_damaged_document_is_read_or_refused(data: st.DataObject) -> None:
    """A document with one byte changed is read, or refused with `FormatError`."""
    written = bytearray(document())
    written[data.draw(st.integers(0, len(written) - 1))] = data.draw(st.integers(0, 255))
    try:
        parse_keys(bytes(written))
    except FormatError as error:
        assert error.path  # noqa: PT017 - raising is one of two right answers


@pytest.mark.parametrize(
    ("changed", "place"),
    [
        ({"values": [[]]}, "values"),
        ({"values": [[1, "True"]]}, "values"),
        ({"values": [["d", 1]]}, "values"),
        ({"values": [["d", "x" * 20_000]]}, "values"),
        ({"settings": [{"x": 1}]}, "settings"),
        ({"settings": [{"x": -1}]}, "settings"),
        ({"settings": [{"x": True}]}, "settings"),
        ({"settings": [["x"]]}, "settings"),
        ({"settings": [{b"x": 0}]}, "settings"),
        ({"graphs": [["k", "f", "", 0]]}, "graphs"),
        ({"graphs": [["k", "f", "", 1, {}]]}, "graphs"),
        ({"graphs": [["k", "f", "", 0, {"x": 1 << 70 >> 8}]]}, "graphs"),
        ({"graphs": [["k", "f", None, 0, {}]]}, "graphs"),
        ({"graphs": {}}, "graphs"),
    ],
)
def test_what_does_not_fit_is_refused_by_its_place(changed: dict[str, object], place: str) -> None:
    """Another type, an index that leads nowhere or a text that is too long is a `FormatError` that says where."""
    with pytest.raises(FormatError) as caught:
        parse_keys(document(**changed))
    assert caught.value.path.startswith(f"explain.{place}")


def test_later_minor_version_is_read() -> None:
    """What a later minor version appends is passed over."""
    data = document(format=[1, 7, "x"], graphs=[["k", "f", "", 0, {}, "more"]], more={})
    assert [key.components["x"].text for key in parse_keys(data)] == ["True"]


def test_other_major_version_is_refused() -> None:
    """A document of another major version is named as such."""
    with pytest.raises(UnsupportedFormatError):
        parse_keys(document(format=[2, 0]))


def test_too_large_a_document_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """A document beyond the bound is refused before it is unpacked."""
    monkeypatch.setattr("megacache._bundle.graph_keys.MAX_SIZE", 10)
    with pytest.raises(FormatError, match="at most 10"):
        parse_keys(document())


def test_graphs_beyond_the_budget_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of too many graphs the first ones are written, so that a reader accepts the document."""
    monkeypatch.setattr("megacache._bundle.graph_keys._BUDGET", 5_000)
    many = [graph(f"f{n}", gm=f"{n}" * 1_000) for n in range(9)]
    read = parse_keys(pack_keys(many))
    assert 0 < len(read) < 9
    assert read == tuple(many[: len(read)])


def test_settings_are_stored_once() -> None:
    """A second graph with the same settings adds what is its own, and little else."""
    shared = {f"inductor_config[setting_{n}]": f"value {n % 50}" for n in range(600)}
    one = len(pack_keys([graph("f1", gm="a", **shared)]))
    two = len(pack_keys([graph("f1", gm="a", **shared), graph("f2", gm="b", **shared)]))
    assert two - one < 60


def test_role_is_read_from_the_key() -> None:
    """A graph's role is what PyTorch compiled it as."""

    def role(backward: str, inference: str) -> str:
        return graph(**{"fx_kwargs[is_backward]": backward, "fx_kwargs[is_inference]": inference}).role

    assert [role("False", "True"), role("False", "False"), role("True", "False")] == [
        "inference",
        "forward",
        "backward",
    ]
    assert graph().role == ""
