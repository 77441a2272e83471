"""Bring compiled files back to where PyTorch looks for them, and take out of its cache what must not be read again."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from megacache import _compiler
from megacache._bundle import CompiledFile, Digest, FileRef, Manifest, Mismatch, mismatches
from megacache._cache.crash_guard import Markers
from megacache._catalog import Catalog, Listing, affordable_manifests
from megacache._compiler import Located
from megacache._compiler import roots as known_roots
from megacache.errors import CompilerError, UntrustedError


class Restoration:
    """The compiled files of one warm start."""

    def __init__(self) -> None:
        self._wanted = False
        self._in_place: list[Path] = []
        self._probes: set[str] = set()
        self.size = 0
        """Bytes of the files that are in place now."""
        self.warnings: list[str] = []
        self._here: Mapping[str, str] = {}
        self._roots: Mapping[str, tuple[Path, ...]] = {}

    def begin(self, *, wanted: bool) -> None:
        """Find out what compiled files depend on here, and where they belong."""
        self._wanted = wanted
        with self._softly():
            self._here, self._roots = _compiler.toolchain(), _compiler.file_roots()

    @property
    def count(self) -> int:
        """Tell how many files are in place now, those that were there before among them."""
        return len(self._in_place)

    def mismatches(self, manifest: Manifest) -> Sequence[Mismatch]:
        """Name the facts that make a bundle's compiled files useless here; none if it holds no such files."""
        if not manifest.files.index:
            return ()
        roots = {file.root for file in manifest.files.index}
        here = known_roots.guard(self._here, roots)
        return mismatches(here, manifest.files.guard, roots=roots, device_type=manifest.environment.device_type)

    def wants(self, manifest: Manifest) -> bool:
        """Tell whether a bundle's compiled files are to be fetched; warn if they cannot be used.

        Those of a program that does not run in this process are none of its business.
        """
        if not self._wanted or not any(file.root in self._roots for file in manifest.files.index):
            return False
        if differing := self.mismatches(manifest):
            why = "; ".join(map(str, differing))
            self.warnings.append(f"compiled files of bundle {manifest.bundle} were left out: {why}")
        return not differing

    def accept(self, files: Iterable[CompiledFile], probes: Iterable[str]) -> None:
        """Put files in place; warn of those for which that fails."""
        self._probes.update(probes)
        failed: list[tuple[Path, Exception]] = []
        for file in files:
            folders = self._roots.get(file.root, ())
            faults = [fault for folder in folders if (fault := self._put(file, folder))]
            failed += faults
            if folders and not faults:
                self._in_place.append(folders[0] / file.path)
                self.size += len(file.content)
        if failed:
            where, why = failed[0]
            self.warnings.append(f"{len(failed)} compiled files were not restored to {where}: {why}")

    def _put(self, file: CompiledFile, folder: Path) -> tuple[Path, Exception] | None:
        try:
            _compiler.restore(file, folder)
        except (OSError, UntrustedError) as error:
            return folder, error
        return None

    def remove(self, files: Iterable[tuple[str, str]]) -> None:
        """Remove files that came from a bundle, given by root and path."""
        for root, path in files:
            for folder in self._roots.get(root, ()):
                with suppress(OSError, UntrustedError):
                    _compiler.remove(root, path, folder)

    def remove_exactly(self, files: Iterable[FileRef]) -> None:
        """Remove files of a bundle, but only where their content is the one that is named."""
        for file in files:
            for folder in self._roots.get(file.root, ()):
                found = Located(root=file.root, path=file.path, folder=folder).read()
                if found and Digest.of(found.content) == file.digest:
                    with suppress(OSError, UntrustedError):
                        _compiler.remove(file.root, file.path, folder)

    def finish(self) -> None:
        """Let PyTorch find what is in place; nothing happens without any."""
        if self._in_place:
            with self._softly():
                _compiler.adopt(self._in_place, self._probes)

    @contextmanager
    def _softly(self) -> Iterator[None]:
        """Go on without compiled files where PyTorch is not as expected: artifacts are of use on their own."""
        try:
            yield
        except CompilerError as error:
            self.warnings.append(f"compiled files are not used: {error}")


def clear_suspects(markers: Markers, restoration: Restoration) -> None:
    """Clear what a process had loaded from bundles when it died."""
    for suspect in markers.to_clear():
        _compiler.forget(suspect.artifacts)
        restoration.remove(suspect.files)


def clear_quarantined(listing: Listing, catalog: Catalog, markers: Markers, restoration: Restoration) -> None:
    """Clear, once, what an earlier start may have loaded from bundles that were withdrawn since.

    What has been compiled here in their place since then stays.
    """
    left = {bundle: size for bundle, size in listing.quarantined.items() if not markers.is_rid_of(bundle)}
    for done in catalog.read(affordable_manifests(left)):
        if done.value is not None:
            _compiler.forget_exactly(done.value.artifacts)
            restoration.remove_exactly(done.value.files.index)
            markers.note_riddance(done.item)
