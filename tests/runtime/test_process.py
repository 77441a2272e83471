"""What a process knows from one call to the next is kept in one place, and forgotten in one call."""

import importlib
import pkgutil
from collections.abc import Iterator
from pathlib import Path

import megacache
from megacache._bundle import identify_artifact
from megacache._cache.crash_guard import guard_beside
from megacache._cache.session import session
from megacache._compiler import roots
from megacache._runtime import forget, process
from megacache._store import keep_secret, without_secrets
from tests.kit.builders import artifact, bundle

LASTING = {
    "megacache._compiler.adoption._entries",
    "megacache._compiler.events._watched",
    "megacache._compiler.kernels._watched",
    "megacache._runtime.process._all",
    "megacache._runtime.shutdown._running",
}
"""What stands for a hook in PyTorch, for a library that it holds, or for a thread that runs."""


def collections() -> Iterator[tuple[str, object]]:
    """Give the collections of all modules that change while the process lives, by name."""
    for found in pkgutil.walk_packages(megacache.__path__, "megacache."):
        if found.name.endswith(("__main__", ".autostart", ".sitecustomize")):
            continue  # which act when they are imported, and keep nothing
        module = importlib.import_module(found.name)
        for name, value in vars(module).items():
            if name.islower() and not name.startswith("__") and isinstance(value, list | dict | set):
                yield f"{found.name}.{name}", value


def test_every_collection_is_kept() -> None:
    """Each module keeps what it knows where it can be forgotten, unless it stands for what lasts."""
    found = dict(collections())
    kept = {id(one) for one, _ in process._all}
    assert {name for name, value in found.items() if id(value) not in kept} == LASTING
    assert len(found) > len(LASTING)


def test_process_that_has_forgotten_is_as_new(tmp_path: Path) -> None:
    """No session, root, secret or guard is left, nor a marker or a roll on disk."""
    known = session("memory://anywhere", None)
    known.cover([identify_artifact(artifact("a"))], ["b"])
    keep_secret("s3://user:something-secret@bucket")
    roots.register(roots.Root(name="engine", folder=tmp_path, facts={}, used=tuple))
    guard = guard_beside(str(tmp_path))
    manifest = bundle([artifact("a")]).manifest
    guard.add([manifest])
    guard.sign_in(manifest.bundle)
    guard.arm()
    assert len(list((tmp_path / "megacache" / "starts").iterdir())) == 2
    forget()
    assert session("memory://anywhere", None).bundles == set()
    assert without_secrets("something-secret") == "something-secret"
    assert roots.registered() == ()
    assert guard_beside(str(tmp_path)) is not guard
    assert list((tmp_path / "megacache" / "starts").iterdir()) == []
