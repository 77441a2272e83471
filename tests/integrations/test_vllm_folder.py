"""What of vLLM's folder belongs to this process, and what its plug-in makes of a model that fails."""

import os
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist

from megacache import _compiler
from megacache._bundle import Digest
from megacache._cache.crash_guard import guard_beside
from megacache._cache.session import session
from megacache._compiler.roots import Models, Root
from megacache._runtime.process import forget
from megacache.integrations import _vllm_folder as folder
from megacache.integrations import vllm as plugin
from tests.kit.builders import Bundle, bundle, compiled_file

MODEL = "torch_aot_compile/0123/rank_0_0/model"


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """Know nothing before and after."""
    forget()
    yield
    forget()


@pytest.fixture
def root(tmp_path: Path) -> Root:
    """Register the folder of a server that is rank 0."""
    return registered(tmp_path)


def registered(cache_root: Path) -> Root:
    """Register the folder below vLLM's cache folder."""
    folder.register_root(cache_root, "0.32.0", {"VLLM_X": "1"})
    folder.publish_configured(
        SimpleNamespace(
            parallel_config=SimpleNamespace(rank=0, data_parallel_index=0), compilation_config=SimpleNamespace()
        )
    )
    found = _compiler.roots.find(folder.ROOT)
    assert found is not None
    return found


def written(root: Root, path: str, *, age: float = 0.0) -> Path:
    """Write a file below the folder."""
    file = root.folder / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"content")
    os.utime(file, (time.time() - age, time.time() - age))
    folder.publish_folder(file.parent)
    return file


def test_what_lay_there_before_is_not_published(root: Root) -> None:
    """A file that an earlier process compiled, nobody knows under which settings, is not published under these."""
    new, _, _ = (
        written(root, MODEL),
        written(root, "torch_aot_compile/4567/rank_0_0/model", age=60),
        written(root, "0123/rank_0_0/backbone/cache_key_factors.json"),
    )
    assert list(root.used()) == [new]


def test_clock_that_counts_is_that_of_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the disk is a server's whose clock is a minute late, what vLLM compiles is published as well."""
    monkeypatch.setattr(folder, "time", SimpleNamespace(time=lambda: time.time() + 60))
    found = registered(tmp_path / "cache")
    new = written(found, MODEL)
    assert list(found.used()) == [new]


def test_folder_that_cannot_be_made_is_no_obstacle(tmp_path: Path) -> None:
    """Then vLLM has nothing there either, and says so itself."""
    (tmp_path / "file").touch()
    assert list(registered(tmp_path / "file").used()) == []


@pytest.mark.parametrize(("loadable", "published"), [(True, 1), (False, 0)])
def test_model_that_vllm_cannot_load_is_not_published(root: Root, *, loadable: bool, published: int) -> None:
    """Where vLLM traces once, as on a CPU, it saves a function that it cannot load: nobody else needs to try."""

    class Module:
        def __init__(self, function: object) -> None:
            self.aot_compiled_fn = SimpleNamespace(_artifacts=SimpleNamespace(compiled_fn=function))

    path = written(root, MODEL)
    module = Module(SimpleNamespace(finalize_loading=print) if loadable else len)
    folder.remember(path, module)
    assert len(list(root.used())) == published


def test_files_of_other_ranks_do_not_concern_this_one(root: Root) -> None:
    """A bundle concerns the rank whose folder is in it, or every rank if none is."""
    assert root.concerns([MODEL])
    assert root.concerns(["torch_aot_compile/0123/inductor_cache/ab/x.so"])
    assert not root.concerns([MODEL.replace("rank_0_0", "rank_1_0"), "torch_aot_compile/0123/inductor_cache/x.so"])


def vllm_counts(monkeypatch: pytest.MonkeyPatch, *, whole: int, pieces: int) -> None:
    """Let vLLM say how much it has loaded."""
    module = ModuleType("vllm.compilation.counter")
    counter = SimpleNamespace(num_aot_artifacts_loaded=whole, num_compiled_artifacts_loaded=pieces)
    module.compilation_counter = counter  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vllm.compilation.counter", module)


def test_models_are_counted_as_vllm_counts(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole models are compared with those that vLLM has loaded, and pieces, of another mode, with its pieces."""
    vllm_counts(monkeypatch, whole=1, pieces=5)
    assert root.models is not None
    pieces = [f"0123/rank_{rank}_0/backbone/artifact_{n}" for rank in (0, 1) for n in range(3)]
    assert root.models([MODEL, MODEL.replace("rank_0_0", "rank_1_0"), *pieces]) == Models(restored=1, loaded=1)
    assert root.models([*pieces, "0123/rank_0_0/backbone/vllm_compile_cache.py"]) == Models(restored=3, loaded=5)
    assert root.models([]) == Models(restored=0, loaded=5)


@pytest.fixture
def restored(root: Root, tmp_path: Path) -> tuple[Path, Bundle]:
    """Put a model in place as a warm start does that has loaded a bundle with it."""
    file = written(root, MODEL)
    one = bundle(files=[compiled_file_of(file)])
    guard_beside(str(tmp_path / "inductor")).add([one.manifest])
    session("memory://x", None).load(one.manifest.bundle, (), one.manifest.files.index)
    return file, one


def compiled_file_of(file: Path) -> Any:
    """Take a file of the folder."""
    return replace(compiled_file(MODEL, file.read_bytes()), root=folder.ROOT)


def hooked(load: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Set the hooks in a module like vLLM's, without a warm start."""
    monkeypatch.setattr(plugin, "_warm", lambda *_: None)
    monkeypatch.setattr(plugin, "autostart", lambda: SimpleNamespace(after_compilation=lambda: None))
    module = SimpleNamespace(
        _try_load_aot_compiled_fn=load, TorchCompileWithNoGuardsWrapper=type("Wrapper", (), {"__call__": call})
    )
    plugin._hook_models(module)
    return module


class Served:
    """A model that vLLM serves."""

    vllm_config = None
    aot_compiled_fn: Any = None


def call(model: Any, *arguments: Any) -> Any:
    """Call a model as vLLM does where it compiles by `torch.compile`."""
    return model.result(*arguments)


def failing(*_: Any) -> Any:
    """Fail."""
    msg = "CUDA driver error: invalid argument"
    raise RuntimeError(msg)


def is_left_out(tmp_path: Path, one: Bundle) -> bool:
    """Tell whether the next start of this host leaves a bundle out, and this process may publish its files anew."""
    noted = one.manifest.bundle in guard_beside(str(tmp_path / "inductor")).notes.failed()
    known = session("memory://x", None)
    assert (one.manifest.bundle in known.unusable) == noted == ((folder.ROOT, MODEL) not in known.files)
    return noted


def test_model_that_is_not_loaded_is_blamed(
    restored: tuple[Path, Bundle], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where vLLM fails to load what a bundle held, the bundle is left out, and the file goes."""
    file, one = restored
    module = hooked(lambda *_: None, monkeypatch)
    assert module._try_load_aot_compiled_fn(Served(), str(file)) is None
    assert is_left_out(tmp_path, one)
    assert not file.exists()
    assert f"bundle {one.manifest.bundle} is left out on this host from now on" in caplog.text


def test_model_that_vllm_compiled_itself_is_not_blamed(
    restored: tuple[Path, Bundle], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that is not the one of the bundle stays, and nothing is left out for it."""
    file, one = restored
    file.write_bytes(b"this host's own")
    module = hooked(lambda *_: None, monkeypatch)
    module._try_load_aot_compiled_fn(Served(), str(file))
    assert not is_left_out(tmp_path, one)
    assert file.exists()


@pytest.mark.parametrize("fails", [True, False])
def test_first_call_decides(
    restored: tuple[Path, Bundle], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, fails: bool
) -> None:
    """An exception in the first call leaves the bundle out; after a good one vLLM calls its own function."""
    file, one = restored

    def function(*arguments: Any) -> Any:
        return failing() if fails else arguments[1:]

    class Wrapped(Served):
        def result(self, *arguments: Any) -> Any:
            return self.aot_compiled_fn(self, *arguments)

    model = Wrapped()
    module = hooked(lambda *_: function, monkeypatch)
    model.aot_compiled_fn = module._try_load_aot_compiled_fn(model, str(file))
    assert model.aot_compiled_fn is not function
    vllm_counts(monkeypatch, whole=1, pieces=0)
    if fails:
        with pytest.raises(RuntimeError, match="CUDA driver error"):
            module.TorchCompileWithNoGuardsWrapper.__call__(model, 1)
    else:
        assert model.aot_compiled_fn(model, 1) == (1,)
        assert model.aot_compiled_fn is function
    assert is_left_out(tmp_path, one) is fails


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), dist.DistBackendError("a peer"), MemoryError()]
)
def test_what_is_no_fault_of_a_model(
    error: Exception, restored: tuple[Path, Bundle], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GPU without room, or a rank that has died, leaves no bundle out."""
    file, one = restored

    def function(*_: Any) -> Any:
        raise error

    model = Served()
    loaded = hooked(lambda *_: function, monkeypatch)._try_load_aot_compiled_fn(model, str(file))
    with pytest.raises(type(error)):
        loaded(model, 1)
    assert not is_left_out(tmp_path, one)
    assert file.exists()


def test_first_call_of_pieces_decides(
    restored: tuple[Path, Bundle], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where vLLM loads pieces as it compiles, an exception in the first call blames what was restored for this rank."""
    _, one = restored
    vllm_counts(monkeypatch, whole=0, pieces=0)

    class Wrapped(Served):
        results = (lambda *_: 1, failing)

        def result(self, index: int) -> Any:
            return self.results[index]()

    wrapper = hooked(print, monkeypatch).TorchCompileWithNoGuardsWrapper
    survivor, victim = Wrapped(), Wrapped()
    assert wrapper.__call__(survivor, 0) == 1
    with pytest.raises(RuntimeError):
        wrapper.__call__(survivor, 1)
    assert not is_left_out(tmp_path, one)
    with pytest.raises(RuntimeError):
        wrapper.__call__(victim, 1)
    # What failed was compiled here.
    assert not is_left_out(tmp_path, one)
    vllm_counts(monkeypatch, whole=0, pieces=1)
    with pytest.raises(RuntimeError, match="CUDA driver error") as caught:
        wrapper.__call__(victim, 1)
    assert is_left_out(tmp_path, one)
    assert caught.value.__notes__ == [plugin._NOTE]


def test_second_failure_is_not_published_anew(
    restored: tuple[Path, Bundle], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host on which something had failed before does not publish one bundle after another."""
    file, one = restored
    guard_beside(str(tmp_path / "inductor")).notes.note_failure("0" * 32)
    hooked(lambda *_: None, monkeypatch)._try_load_aot_compiled_fn(Served(), str(file))
    assert one.manifest.bundle in guard_beside(str(tmp_path / "inductor")).notes.failed()
    assert (folder.ROOT, MODEL) in session("memory://x", None).files
    assert Digest.of(b"content") == one.manifest.files.index[0].digest
