"""Restore compiled files to where PyTorch looks for them, and remove from its cache what must not be read again."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from megacache import _compiler
from megacache._bundle import CompiledFile, Digest, FileRef, Manifest, Mismatch, differences, file_mismatches
from megacache._cache.crash_guard import CrashGuard
from megacache._cache.root_bundles import RootBundles
from megacache._catalog import Catalog, Listing, affordable_manifests
from megacache._compiler import Located
from megacache._compiler import roots as known_roots
from megacache._runtime import Deadline, counted, shown
from megacache.errors import CompilerError, UntrustedError

FileName = tuple[str, str]
"""Root and path of a compiled file."""


def gone(missing: Sequence[FileName]) -> str:
    """Say that compiled files are not there."""
    names = f"{counted(len(missing), 'compiled file')} that its graphs or kernels need"
    return f"{names} had been removed before it was published, such as {shown(missing[0][1])}"


@dataclass(slots=True, kw_only=True)
class _Batch:
    """The compiled files of one bundle, as far as they have come."""

    in_place: dict[FileName, int] = field(default_factory=dict)
    """Size of each that is there now, or was there before."""
    written: list[Path] = field(default_factory=list)
    """Where none of that content was before."""
    lists: list[CompiledFile] = field(default_factory=list)
    """Those that name others, which must be there first."""
    builds: list[CompiledFile] = field(default_factory=list)
    """Those that hold a folder as a whole."""
    failed: dict[FileName, tuple[Path, Exception]] = field(default_factory=dict)


class Restoration:
    """The compiled files of one warm start."""

    def __init__(self) -> None:
        self._wanted = False
        self._in_place: dict[FileName, int] = {}
        self._batches: dict[str, _Batch] = {}
        self._missing: dict[FileName, str] = {}
        self._builds: dict[FileName, CompiledFile] = {}
        self._written: set[Path] = set()
        self._of_roots: dict[str, RootBundles] = {}
        self.warnings: list[str] = []
        self._here: Mapping[str, str] = {}
        self._roots: Mapping[str, tuple[Path, ...]] = {}

    def begin(self, device: int | None, deadline: Deadline, *, wanted: bool) -> None:
        """Find out what compiled files depend on here, and where they belong; `device` is the GPU that is in use."""
        self._wanted = wanted
        with self._softly():
            self._here, self._roots = _compiler.toolchain(deadline), _compiler.file_roots(device)

    @property
    def count(self) -> int:
        """Tell how many files are in place now, those that were there before among them."""
        return len(self._in_place)

    @property
    def size(self) -> int:
        """Tell how many bytes they have."""
        return sum(self._in_place.values())

    def file_mismatches(self, manifest: Manifest) -> Sequence[Mismatch]:
        """Name the facts that make a bundle's compiled files useless here; none if it holds no compiled files."""
        if not manifest.files.index:
            return ()
        roots = {file.root for file in manifest.files.index}
        here = known_roots.guard(self._here, roots)
        return file_mismatches(here, manifest.files.guard, roots=roots, device_type=manifest.environment.device_type)

    def wants(self, manifest: Manifest) -> bool:
        """Tell whether a bundle's compiled files are to be fetched; warn if they cannot be used.

        Files of a root that this process does not have are not fetched, without a warning.
        """
        if self._wanted:
            self._missing.update(dict.fromkeys(manifest.files.missing, manifest.bundle))
        if not self._wanted or not any(file.root in self._roots for file in manifest.files.index):
            return False
        differing = self.file_mismatches(manifest)
        roots = {file.root for file in manifest.files.index}
        own = next(filter(None, map(known_roots.find, roots)), None) if len(roots) == 1 else None
        if own is not None:
            self._of_roots.setdefault(own.name, RootBundles(own)).add(manifest, differing)
        elif differing:
            self.warnings.append(f"compiled files of bundle {manifest.bundle} were left out: {differences(differing)}")
        return not differing

    def not_needed(self, whole: Collection[str]) -> Collection[str]:
        """Give the ids of bundles that only other ranks need, as `RootBundles.not_needed` does for each root."""
        return frozenset[str]().union(*(one.not_needed(whole) for one in self._of_roots.values()))

    def accept(self, bundle: str, files: Iterable[CompiledFile]) -> None:
        """Put some files of a bundle in place; those that name others wait until all files are there."""
        batch = self._batches.setdefault(bundle, _Batch())
        for file in files:
            if _compiler.build_of(file.root, file.path):
                batch.builds.append(file)
            elif _compiler.lists_others(file.path):
                batch.lists.append(file)
            else:
                self._put(file, batch)

    def _put(self, file: CompiledFile, batch: _Batch) -> None:
        name, folders = (file.root, file.path), self._roots.get(file.root, ())
        # PyTorch may look into any of them.
        for folder in folders:
            try:
                target = folder / file.path
                # Who has published a file that another bundle holds as well had not got on with that one.
                if _compiler.restore(file, folder, anew=target in self._written):
                    batch.written.append(target)
            except (OSError, UntrustedError, CompilerError) as error:
                batch.failed.setdefault(name, (folder, error))
        if folders and name not in batch.failed:
            batch.in_place[name] = len(file.content)

    def settle(self, manifest: Manifest) -> Sequence[FileRef]:
        """Let PyTorch find the files of a bundle that has come whole; give those that are useful here.

        Warn of those that could not be put in place.
        """
        batch = self._batches.pop(manifest.bundle, _Batch())
        # Triton takes it for granted that what a list names is there.
        lost = {_folder(name) for name in batch.failed}
        for file in batch.lists:
            if _folder((file.root, file.path)) not in lost:
                self._put(file, batch)
        self._in_place.update(batch.in_place)
        self._written.update(batch.written)
        # Of several builds in one folder the newest is the one to put there, and a later bundle may hold it.
        self._builds |= {(one.root, _compiler.build_of(one.root, one.path) or ""): one for one in batch.builds}
        if batch.in_place:
            with self._softly():
                # Only libraries of kernels are adopted, and their root has one folder.
                own = [name for name in batch.in_place if not name[0].startswith(known_roots.FOREIGN)]
                _compiler.adopt(self._roots[root][0] / path for root, path in own)
                _compiler.believe(manifest.files.probes)
        if batch.failed:
            where, why = next(iter(batch.failed.values()))
            count = counted(len(batch.failed), "compiled file")
            self.warnings.append(f"{count} of bundle {manifest.bundle} could not be restored to {where}: {why}")
        refused = {name for name, (_, why) in batch.failed.items() if isinstance(why, CompilerError)}
        useful = () if self.file_mismatches(manifest) else manifest.files.index
        return [ref for ref in useful if (ref.root, ref.path) not in refused]

    def abandon(self, bundle: str) -> None:
        """Remove what has been written of a bundle that is not loaded after all."""
        for path in self._batches.pop(bundle, _Batch()).written:
            with suppress(OSError):
                path.unlink()

    def remove(self, files: Iterable[FileName], *, loaded: bool) -> None:
        """Remove files that came from a bundle, but not those that a living process that has `loaded` it may need."""
        for root, path in _removable(files, loaded=loaded):
            for folder in self._roots.get(root, ()):
                with suppress(OSError, UntrustedError):
                    _compiler.remove(root, path, folder)

    def remove_exactly(self, files: Iterable[FileRef], *, loaded: bool) -> None:
        """Remove files as `remove` does, but only where their content is the one that is named."""
        digests = {(file.root, file.path): file.digest for file in files}
        for root, path in _removable(digests, loaded=loaded):
            for folder in self._roots.get(root, ()):
                found = Located(root=root, path=path, folder=folder).read()
                if found and Digest.of(found.content) == digests[root, path]:
                    with suppress(OSError, UntrustedError):
                        _compiler.remove(root, path, folder)

    def finish(self) -> None:
        """Put builds in place, and warn of what graphs need that no bundle had and that is not here either.

        Where no bundle of a program fits, the nearest is named.
        """
        self.warnings += filter(None, (one.warning() for one in self._of_roots.values()))
        self._of_roots.clear()
        batch = _Batch()
        for file in self._builds.values():
            self._put(file, batch)
        self._in_place.update(batch.in_place)
        self.warnings += [f"a build was not restored: {why}" for _, why in batch.failed.values()]
        absent: dict[str, list[FileName]] = {}
        for name, bundle in self._missing.items():
            if name not in self._in_place and not self._is_here(name):
                absent.setdefault(bundle, []).append(name)
        for bundle, names in absent.items():
            self.warnings.append(f"bundle {bundle} is not whole: {gone(names)}; PyTorch compiles it here")

    def _is_here(self, name: FileName) -> bool:
        return any((folder / name[1]).is_file() for folder in self._roots.get(name[0], ()))

    @contextmanager
    def _softly(self) -> Iterator[None]:
        try:
            yield
        except CompilerError as error:  # artifacts are useful on their own
            self.warnings.append(f"compiled files are not used: {error}")


def _folder(name: FileName) -> FileName:
    root, path = name
    return root, path.rpartition("/")[0]


def _removable(files: Iterable[FileName], *, loaded: bool) -> Sequence[FileName]:
    """Leave out what a living process may still open, and begin with the files that name others."""
    # The libraries of kernels are in the memory of the processes that have loaded their bundle.
    left = [one for one in files if not loaded or _compiler.is_kernel(one[1])]
    return sorted(left, key=lambda one: not _compiler.lists_others(one[1]))


def clear_suspects(guard: CrashGuard, restoration: Restoration) -> None:
    """Clear what a process had loaded from bundles when it died.

    Graphs go at once, for PyTorch compiles those anew that it does not find. Files stay for those who live.
    """
    loaded = guard.rolls.loaded_by_the_living()
    for suspect in guard.markers.to_clear(loaded):
        _compiler.forget(suspect.artifacts)
        restoration.remove(suspect.files, loaded=suspect.bundle in loaded)


def find_quarantined(listing: Listing, catalog: Catalog, guard: CrashGuard) -> Sequence[Manifest]:
    """Read the manifests of withdrawn bundles that have not been cleared here since."""
    left = {bundle: size for bundle, size in listing.quarantined.items() if not guard.notes.is_cleared(bundle)}
    return [done.value for done in catalog.read(affordable_manifests(left)) if done.value is not None]


def clear_quarantined(withdrawn: Iterable[Manifest], guard: CrashGuard, restoration: Restoration) -> None:
    """Clear, once, what an earlier start may have loaded from bundles that were withdrawn since.

    What has been compiled here in their place since then stays, and files do, as in `clear_suspects`.
    """
    loaded: Collection[str] = guard.rolls.loaded_by_the_living()
    for manifest in withdrawn:
        _compiler.forget_exactly(manifest.artifacts)
        restoration.remove_exactly(manifest.files.index, loaded=manifest.bundle in loaded)
        # Else a later start has to look again: the files have stayed.
        if manifest.bundle not in loaded:
            guard.notes.note(manifest.bundle)
