"""PyTorch's private names, as the installed torch and the recorded one have them."""

import importlib.util
import json
from pathlib import Path

import pytest

from tests.kit import torch_state
from tests.kit.torch_names import absent
from tests.kit.torch_state import RECORD, WORDS, compared, names


def test_every_name_exists() -> None:
    """All that the door to torch asks for is in this build, but for what only a build with Triton has."""
    missing = absent(*sorted(torch_state.DOOR.rglob("*.py")), packages=frozenset(installed()))
    assert missing == []


def installed() -> list[str]:
    """Give the packages that can be looked at here."""
    return [package for package in torch_state.PACKAGES if importlib.util.find_spec(package)]


def test_record_holds_every_name() -> None:
    """A name that the door begins to ask for has to be recorded: `nox -s names -- --record`."""
    recorded = json.loads(RECORD.read_text())["state"]
    assert recorded.keys() == {*names(), *(f"text {word}" for word in WORDS)}


def test_what_changed_is_told() -> None:
    """A name may be gone, have another signature or another body; one that was absent may have come."""
    before = {"a": ("(x)", "1"), "b": ("(x)", "1"), "c": ("(x)", "1"), "d": ("(x)", "1"), "e": ("absent", "")}
    now = {"a": ("absent", ""), "b": ("(x, y)", "2"), "c": ("(x)", "2"), "d": ("(x)", "1"), "e": ("class", "1")}
    assert list(compared(before, now)) == [
        ("gone", "a", ""),
        ("changed", "b", "(x) -> (x, y)"),
        ("changed", "c", "body"),
        ("same", "d", ""),
        ("changed", "e", "absent -> class"),
    ]


@pytest.mark.nightly
@pytest.mark.parametrize("gone", [0, 1])
def test_command_fails_if_a_name_is_gone(
    gone: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It names what is gone, beside which versions, and fails only then."""
    record = tmp_path / "record.json"
    before = {**torch_state.state(), **dict([("torch.older", ("(x)", "1"))] * gone)}
    record.write_text(json.dumps({"versions": {"torch": "2.7"}, "state": before}))
    monkeypatch.setattr(torch_state, "RECORD", record)
    monkeypatch.setattr("sys.argv", ["torch_state"])
    assert torch_state.main() == gone
    told = capsys.readouterr().out
    assert ("gone     torch.older" in told, "beside torch 2.7" in told) == (bool(gone), True)
    assert told.endswith(f" same, 0 changed, {gone} gone\n")
