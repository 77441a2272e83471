"""Kernels that Triton compiled outside of a graph travel with the process that holds them."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from megacache._files import Located, restore

pytestmark = pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed, as on every CPU build")

PROGRAM = """
import json, sys
from pathlib import Path
import triton, triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from megacache._compiler._triton import kernel_files

@triton.jit
def double(source, target, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(target + at, tl.load(source + at, mask=at < n) * 2, mask=at < n)

signature = {"source": "*fp32", "target": "*fp32", "n": "i32", "BLOCK": "constexpr"}
kernel = triton.compile(ASTSource(double, signature, {"BLOCK": 64}), target=GPUTarget("cuda", 80, 32))
folder, inductor = map(Path, sys.argv[1:])
found = sorted(str(path.relative_to(folder)) for path in kernel_files(folder, inductor))
print(json.dumps({"found": found, "sizes": [len(kernel.kernel)], "all": len(list(folder.rglob("*.*")))}))
"""


def compiled(tmp_path: Path, folder: Path, inductor: Path) -> dict[str, Any]:
    """Compile a kernel for a GPU that need not be there, in a process of its own."""
    program = tmp_path / "kernel.py"
    program.write_text(PROGRAM)
    variables = {**os.environ, "TRITON_CACHE_DIR": str(folder), "PYTHONPATH": os.pathsep.join(sys.path)}
    argv = [sys.executable, str(program), str(folder), str(inductor)]
    done = subprocess.run(argv, env=variables, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def test_kernel_moves_to_another_folder(tmp_path: Path) -> None:
    """The files of a kernel are found, restored under another root, and serve there without a compilation."""
    before, after = tmp_path / "before", tmp_path / "after"
    first = compiled(tmp_path, before, tmp_path / "inductor")
    assert any(path.endswith(".cubin") for path in first["found"])
    files = [Located(root="triton", path=path, folder=before).read() for path in first["found"]]
    assert [restore(file, after) for file in files if file is not None]
    stamps = {path: path.stat().st_mtime_ns for path in after.rglob("*.*")}
    assert compiled(tmp_path, after, tmp_path / "inductor")["sizes"] == first["sizes"]
    assert {path: path.stat().st_mtime_ns for path in after.rglob("*.*")} == stamps


def test_kernels_of_graphs_stay_behind(tmp_path: Path) -> None:
    """A kernel whose source Inductor wrote into its own folder travels in its graph's artifact, not here."""
    answer = compiled(tmp_path, tmp_path / "triton", tmp_path)
    assert answer["found"] == []
    assert answer["all"] > 0
