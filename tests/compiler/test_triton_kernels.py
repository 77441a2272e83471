"""Kernels that are in no artifact travel as files with the process that uses them."""

import base64
import json
import os
import subprocess
import sys
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from megacache._bundle import Artifact
from megacache._compiler import Located, restore
from megacache._compiler.kernels import kernel_files

needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed, as on every CPU build")

DIGEST = "ab" * 32
FOLDER = base64.b32encode(bytes.fromhex(DIGEST)).decode().rstrip("=")
NAMED = Artifact(kind="inductor", key="f", content=b"\x8c\x40" + DIGEST.encode())
HELD = Artifact(kind="inductor", key="f", content=bytes(NAMED.content) + b"\x8c\x34" + FOLDER.encode())
WINNER = Artifact(kind="autotune", key="a", content=json.dumps({"triton_cache_hash": FOLDER}).encode())
SPELLED = Artifact(kind="inductor", key="f", content=f"/cache/triton/0/{FOLDER}/kernel.cubin".encode())

PROGRAM = """
import json, shutil, sys
from pathlib import Path
import triton, triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from megacache._compiler.kernels import kernel_files

@triton.jit
def double(source, target, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(target + at, tl.load(source + at, mask=at < n) * 2, mask=at < n)

signature = {"source": "*fp32", "target": "*fp32", "n": "i32", "BLOCK": "constexpr"}
kernel = triton.compile(ASTSource(double, signature, {"BLOCK": 64}), target=GPUTarget("cuda", 80, 32))
folder = Path(sys.argv[1])
if "gone" in sys.argv:
    shutil.rmtree(folder)
found = sorted({str(path.relative_to(folder)) for path in kernel_files((), [folder])})
print(json.dumps({"found": found, "sizes": [len(kernel.kernel)]}))
"""


def found(folder: Path, artifacts: Iterable[Artifact]) -> list[str]:
    """Name the files of one kernel that would travel with some artifacts."""
    (folder / FOLDER).mkdir()
    (folder / FOLDER / "kernel.cubin").write_bytes(b"1")
    return [path.name for path in kernel_files(artifacts, [folder, folder / "gone"])]


@pytest.mark.parametrize("artifacts", [[NAMED], [WINNER], [NAMED, WINNER]])
def test_kernel_that_is_only_named_travels(tmp_path: Path, artifacts: list[Artifact]) -> None:
    """A graph's artifact may ask for a kernel that it lacks, and an autotuning for a winner that nobody bundled."""
    assert found(tmp_path, artifacts) == ["kernel.cubin"]


@pytest.mark.parametrize("artifacts", [[HELD], [HELD, WINNER], [SPELLED], []])
def test_kernel_in_an_artifact_stays_behind(tmp_path: Path, artifacts: list[Artifact]) -> None:
    """What travels in its graph's artifact does not travel twice, and a path in a text asks for nothing."""
    assert found(tmp_path, artifacts) == []


def compiled(tmp_path: Path, folder: Path, *words: str) -> dict[str, Any]:
    """Compile a kernel for a GPU that need not be there, in a process of its own."""
    program = tmp_path / "kernel.py"
    program.write_text(PROGRAM)
    variables = {**os.environ, "TRITON_CACHE_DIR": str(folder), "PYTHONPATH": os.pathsep.join(sys.path)}
    argv = [sys.executable, str(program), str(folder), *words]
    done = subprocess.run(argv, env=variables, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


@needs_triton
def test_kernel_moves_to_another_folder(tmp_path: Path) -> None:
    """The files of a kernel are found, restored under another root, and serve there without a compilation."""
    before, after = tmp_path / "before", tmp_path / "after"
    first = compiled(tmp_path, before)
    assert any(path.endswith(".cubin") for path in first["found"])
    files = [Located(root="triton", path=path, folder=before).read() for path in first["found"]]
    assert [restore(file, after) for file in files if file is not None]
    stamps = {path: path.stat().st_mtime_ns for path in after.rglob("*.*")}
    assert compiled(tmp_path, after)["sizes"] == first["sizes"]
    assert {path: path.stat().st_mtime_ns for path in after.rglob("*.*")} == stamps


@needs_triton
def test_files_of_a_living_kernel_are_named_after_they_are_gone(tmp_path: Path) -> None:
    """A publication can tell what it lacks: all but Triton's list of them."""
    there = compiled(tmp_path, tmp_path / "there")["found"]
    gone = compiled(tmp_path, tmp_path / "gone", "gone")["found"]
    assert gone == [path for path in there if "__grp__" not in path]
    assert len(gone) > 3
