"""Autotuners that come out of a bundle look for their winner, and keep it, in this process's cache folder."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from torch._inductor.runtime import triton_heuristics

from megacache._compiler import autotuners


class Hook:
    """Keeps the winner of a tuning, as PyTorch's `AutotuneCache` does."""

    def __init__(self, path: str) -> None:
        self.local_cache = ("reader", path)

    def save(self) -> None:
        """Stand for what the autotuner keeps of it: this method."""


def config(block: int, **known: Any) -> Any:
    """Make one configuration of a kernel."""
    return SimpleNamespace(kwargs={"XBLOCK": block}, num_warps=2, num_stages=1, **known)


def autotuner(folder: str, *left: int) -> Any:
    """Make an autotuner of another host, with some configurations left."""
    return SimpleNamespace(
        filename=f"{folder}/ab/code.py",
        save_cache_hook=Hook(f"{folder}/ab/digest.best_config").save,
        compile_results=[SimpleNamespace(config=config(block)) for block in left],
        inductor_meta={},
        fn=SimpleNamespace(fn=None),
    )


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the cache folder of this process."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "here"))
    return tmp_path / "here"


def test_paths_lead_here(here: Path) -> None:
    """The source and the winner are looked for under this process's folder, by the time the autotuner looks."""
    seen: list[Any] = []
    elsewhere = autotuner("/the/publishers", 4, 8)
    autotuners._led(lambda one, *_: seen.append((one.filename, one.save_cache_hook.__self__.local_cache)))(
        elsewhere, None
    )
    assert seen == [(f"{here}/ab/code.py", ("reader", f"{here}/ab/digest.best_config"))]


@pytest.mark.parametrize("hook", [None, lambda: None, [].append])
def test_autotuner_without_a_cache_is_left_alone(here: Path, hook: Any) -> None:
    """One that keeps no winner, or keeps it in no file, is only told where its source lies."""
    bare = autotuner("/the/publishers", 4, 8)
    bare.save_cache_hook = hook
    autotuners._led(lambda *_: None)(bare, None)
    assert bare.filename == f"{here}/ab/code.py"


@pytest.mark.parametrize(
    ("winner", "compiled", "settled"),
    [
        (config(8, found_by_coordesc=True), [], True),
        (config(16, found_by_coordesc=True), [16], True),
        (config(8), [], False),
        (None, [], False),
    ],
    ids=["offered", "not offered", "by heuristics", "none"],
)
def test_winner_of_coordinate_descent_is_not_tuned_again(
    here: Path, monkeypatch: pytest.MonkeyPatch, winner: Any, compiled: list[int], settled: bool
) -> None:
    """The winner is used as found: it is compiled only if it was not among the configurations that were offered."""
    one = autotuner(str(here), 8)
    found = [config(1), config(2)] if winner is None else [winner]
    monkeypatch.setattr(triton_heuristics, "check_autotune_cache", lambda *_: (found, None, {}))
    seen: list[int] = []

    def precompile(best: Any) -> Any:
        seen.append(best.kwargs["XBLOCK"])
        return SimpleNamespace(config=best)

    one._precompile_config = precompile
    autotuners._led(lambda *_: None)(one, lambda: one)
    (result,) = one.compile_results
    assert seen == compiled
    assert getattr(result.config, "found_by_coordesc", False) is settled


def test_autotuner_of_another_pytorch_is_left_to_it(here: Path) -> None:
    """What is kept in another way than is known here goes on as without megacache."""
    seen: list[Any] = []
    strange = SimpleNamespace(compile_results=[], save_cache_hook=None)
    autotuners._led(lambda one, *_: seen.append(one))(strange, lambda: None)
    assert seen == [strange]
    assert not here.exists()
