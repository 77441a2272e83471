"""Bring the content of several bundles into the chunks of one: large chunks stay as they are, small ones are joined."""

from collections.abc import Iterable, Sequence
from contextlib import closing, suppress

from megacache._bundle import (
    CHUNK_SIZE,
    EXPLAIN_PART,
    Artifact,
    ChunkRef,
    CompiledFile,
    GraphKey,
    Manifest,
    Name,
    Payload,
    Unpacked,
    artifact_payloads,
    declared_names,
    file_payloads,
    name_of_artifact,
    name_of_file,
    pack_keys,
    parse_blob,
    parse_keys,
)
from megacache._catalog.catalog import Catalog
from megacache._catalog.delivery import Order
from megacache._runtime import Progress, ProgressCallback
from megacache.errors import BundleError, MegacacheError, MissingError

_LARGE = CHUNK_SIZE // 2
"""Bytes of raw content from which on a chunk is not worth joining with others."""


class Repacking:
    """One run over several merges."""

    def __init__(self, catalog: Catalog, progress: ProgressCallback, total: int) -> None:
        self._catalog = catalog
        self._progress = progress
        self._total = total
        self._read = 0

    def run(
        self, sources: Sequence[Manifest], wanted: Manifest
    ) -> tuple[tuple[ChunkRef, ...], dict[str, MegacacheError]]:
        """Read and verify all sources, and write what the merged manifest promises; give its chunks.

        Where sources cannot be used, nothing is written, and each of them is given with its fault. Raises `StoreError`
        where the store fails as a whole.
        """
        content = _Content(wanted)
        faults: dict[str, MegacacheError] = {}
        with closing(self._catalog.deliver([Order(manifest=one, files=True) for one in sources])) as deliveries:
            for delivery in deliveries:
                if delivery.fault is not None:
                    if not isinstance(delivery.fault, BundleError | MissingError):
                        raise delivery.fault
                    faults[delivery.manifest.bundle] = delivery.fault
                for unpacked in delivery.contents:
                    self._advance(unpacked.ref)
                    content.take(unpacked)
        if faults:
            return (), faults
        payloads = [*content.payloads(), *self._explain_data(sources)]
        return (*content.kept, *self._catalog.write(payloads, uploaded=lambda _: None)), {}

    def _explain_data(self, sources: Iterable[Manifest]) -> Iterable[Payload]:
        """Join the explain data, of which what cannot be used is left out: no start depends on it."""
        refs = {ref.digest: (one.bundle, ref) for one in sources for ref in one.chunks if ref.part == EXPLAIN_PART}
        keys: dict[tuple[str, str, str], GraphKey] = {}
        for done in self._catalog.fetch(tuple(refs.values())):
            self._advance(done.item[1])
            with suppress(BundleError, MissingError):
                keys |= {(key.kind, key.key, key.guard): key for key in parse_keys(done.result())}
        if not keys:
            return ()
        raw = pack_keys(key for _, key in sorted(keys.items()))
        return (Payload(part=EXPLAIN_PART, weight=len(raw), build=lambda: raw),)

    def _advance(self, ref: ChunkRef) -> None:
        self._read += ref.stored_size
        self._progress(Progress(stage="compact", done=min(self._read, self._total), total=self._total))


class _Content:
    """What has come of the sources, each artifact and file once."""

    def __init__(self, wanted: Manifest) -> None:
        self._wanted = set(declared_names(wanted, files=True))
        self._artifacts: dict[Name, Artifact] = {}
        self._files: dict[Name, CompiledFile] = {}
        self.kept: list[ChunkRef] = []
        """Chunks that are in the store as they should be."""

    def take(self, unpacked: Unpacked) -> None:
        """Take a chunk: as it is if it is large and holds nothing else than what is wanted, or what is wanted of it."""
        new = unpacked.names & self._wanted
        self._wanted -= new
        if new == unpacked.names and unpacked.ref.raw_size >= _LARGE:
            self.kept.append(unpacked.ref)
            return
        if unpacked.blob:
            found = {name_of_artifact(one): one for one in parse_blob(unpacked.blob)}
            self._artifacts |= {name: one for name, one in found.items() if name in new}
        self._files |= {name: one for one in unpacked.files if (name := name_of_file(one)) in new}

    def payloads(self) -> list[Payload]:
        """Give what is to be written, in an order that does not depend on that of the arrivals."""
        artifacts = [one for _, one in sorted(self._artifacts.items(), key=lambda item: item[0])]
        files = [one for _, one in sorted(self._files.items(), key=lambda item: item[0])]
        return [*artifact_payloads(artifacts), *file_payloads(files)]
