"""Autotuners that come out of a bundle look for their winner, and keep it, in this process's cache folder."""

import json
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from megacache._compiler import _autotuners

CONFIG = {"XBLOCK": 8, "num_warps": 2}


class Hook:
    """Keeps the winner of a tuning, as PyTorch's `AutotuneCache` does."""

    def __init__(self, path: str) -> None:
        self.local_cache = ("reader", path)

    def save(self) -> None:
        """Stand for what the autotuner keeps of it: this method."""


def autotuner(folder: str, results: int = 2) -> Any:
    """Make an autotuner of another host, with some configurations left."""
    config = {"kwargs": {"XBLOCK": 8}, "num_warps": 2}
    return SimpleNamespace(
        filename=f"{folder}/ab/code.py",
        save_cache_hook=Hook(f"{folder}/ab/digest.best_config").save,
        compile_results=[SimpleNamespace(config=SimpleNamespace(**config)) for _ in range(results)],
    )


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the cache folder of this process."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "here"))
    return tmp_path / "here"


def test_paths_lead_here(here: Path) -> None:
    """The source and the winner are looked for under this process's folder, by the time the autotuner looks."""
    seen: list[Any] = []
    elsewhere = autotuner("/the/publishers")
    _autotuners._led(lambda one, *_: seen.append((one.filename, one.save_cache_hook.__self__.local_cache)))(elsewhere)
    assert seen == [(f"{here}/ab/code.py", ("reader", f"{here}/ab/digest.best_config"))]


@pytest.mark.parametrize("hook", [None, lambda: None, [].append])
def test_autotuner_without_a_cache_is_left_alone(here: Path, hook: Any) -> None:
    """One that keeps no winner, or keeps it in no file, is only told where its source lies."""
    bare = autotuner("/the/publishers")
    bare.save_cache_hook = hook
    _autotuners._led(lambda *_: None)(bare)
    assert bare.filename == f"{here}/ab/code.py"


@pytest.mark.parametrize(
    ("written", "settled"),
    [
        ({**CONFIG, "found_by_coordesc": True}, True),
        ({**CONFIG, "found_by_coordesc": False}, False),
        ({**CONFIG, "XBLOCK": 16, "found_by_coordesc": True}, False),
        (None, False),
    ],
)
def test_winner_of_coordinate_descent_is_not_tuned_again(
    here: Path, written: Mapping[str, Any] | None, settled: bool
) -> None:
    """The one configuration that is left counts as found if that is what was written down of it."""
    (here / "ab").mkdir(parents=True)
    if written:
        (here / "ab" / "digest.best_config").write_text(json.dumps(written))
    elsewhere = autotuner("/the/publishers", results=1)
    _autotuners._led(lambda *_: None)(elsewhere)
    assert getattr(elsewhere.compile_results[0].config, "found_by_coordesc", False) is settled
