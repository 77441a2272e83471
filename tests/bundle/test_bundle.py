"""A bundle is named and described by what is in it."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from megacache._bundle import (
    ArtifactRef,
    CompiledFile,
    Digest,
    FilesPart,
    bundle_id,
    chunks_of,
    declared_names,
    describe,
    identify_artifact,
    identify_file,
    pack_chunk,
    variant_of,
)
from tests.kit.builders import artifact, bundle, compiled_file, environment, payload


def files_part(*files: CompiledFile) -> FilesPart:
    """Describe compiled files."""
    return FilesPart(guard={"compiler": "one"}, index=tuple(map(identify_file, files)))


def ref(key: str, content: bytes = b"content", *, guard: str | None = "", kind: str = "inductor") -> ArtifactRef:
    """Name an artifact as a publisher does."""
    return replace(identify_artifact(artifact(key, content, kind=kind)), guard=guard)


def test_bundle_is_named_by_kinds_keys_and_guards() -> None:
    """The order of artifacts, their contents and repeats do not change a bundle's id; a key, a kind or a guard does."""
    first, second = ref("one", b"1"), ref("two", b"2")
    name = bundle_id([first, second], [])
    assert len(name) == 32
    assert bundle_id([second, first], []) == name
    assert bundle_id([ref("one", b"other"), second, first], []) == name
    others = [[first], [first, ref("2")], [first, ref("two", kind="pgo")], [first, ref("two", guard="x")]]
    assert name not in {bundle_id(other, []) for other in others}


def test_artifact_serves_in_place_of_one_with_its_kind_key_and_guard() -> None:
    """Where the guard is not known nobody else can say, except of the same bytes; some kinds have none."""
    assert variant_of(ref("k", b"1")) == variant_of(ref("k", b"2")) != variant_of(ref("k", b"1", guard="x"))
    assert variant_of(ref("k", b"1", guard=None)) == variant_of(ref("k", b"1", guard=None))
    known = {variant_of(ref("k", b"1", guard=guard)) for guard in ("", "x")}
    assert variant_of(ref("k", b"2", guard=None)) not in {*known, variant_of(ref("k", b"1", guard=None))}
    assert variant_of(ref("k", b"1", guard=None, kind="pgo")) == variant_of(ref("k", b"2", guard=None, kind="pgo"))


def test_bundle_is_named_by_its_parents() -> None:
    """A process that knew other bundles names another bundle, in whatever order it knew them."""
    refs = [identify_artifact(artifact())]
    orphan, child = bundle_id(refs, []), bundle_id(refs, ["aa", "bb"])
    assert orphan != child == bundle_id(refs, ["bb", "aa"])
    assert bundle_id(refs, ["aabb"]) != child


def test_manifest_describes_the_bundle() -> None:
    """A new manifest holds what it was given, is named by it, and says when it was made."""
    refs, chunk = [identify_artifact(artifact())], pack_chunk(payload([artifact()]))
    manifest = describe(
        environment=environment(), artifacts=refs, chunks=[chunk.ref], parents={"b", "a"}, labels={"commit": "1f"}
    )
    assert manifest.bundle == bundle_id(refs, ["a", "b"])
    assert (manifest.environment, manifest.parents) == (environment(), ("a", "b"))
    assert (manifest.artifacts, manifest.chunks, manifest.labels) == (tuple(refs), (chunk.ref,), {"commit": "1f"})
    assert datetime.fromisoformat(manifest.created).utcoffset() == timedelta(0)
    assert abs(datetime.fromisoformat(manifest.created) - datetime.now(UTC)) < timedelta(days=1)


def test_bundle_is_named_by_its_files_and_their_guard() -> None:
    """The paths of compiled files and what guards them enter a bundle's id; their contents do not."""
    refs = [identify_artifact(artifact())]
    files = files_part(compiled_file("ab/one.so", b"1"))
    name = bundle_id(refs, [], files)
    assert name == bundle_id(refs, [], files_part(compiled_file("ab/one.so", b"other")))
    others = [FilesPart(), files_part(compiled_file("ab/two.so")), replace(files, guard={"compiler": "another"})]
    assert name not in {bundle_id(refs, [], other) for other in others}


def test_only_wanted_parts_are_read() -> None:
    """Compiled files are read if they are wanted, and parts that this version does not know never."""
    made = bundle([artifact()], files=[compiled_file("ab/one.so", b"12")])
    artifacts, files = made.manifest.chunks
    manifest = replace(made.manifest, chunks=(replace(artifacts, part="later"), files, artifacts))
    assert chunks_of(manifest, files=False) == (artifacts,)
    assert chunks_of(manifest, files=True) == (files, artifacts)
    assert {name[0] for name in declared_names(manifest, files=False)} == {"artifacts"}
    assert ("files", "inductor", "ab/one.so", Digest.of(b"12")) in declared_names(manifest, files=True)
