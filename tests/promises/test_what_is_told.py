"""What a bundle tells of the process that made it, beside what it compiled."""

from pathlib import Path

import pytest
import torch
import zstandard
from torch.torch_version import TorchVersion

from megacache._bundle import unseal
from tests.kit.processes import Processes, step

SECRET = {"TRITON_API_KEY": "s3cr3t-of-triton", "TORCHINDUCTOR_REDIS_URL": "redis://me:s3cr3t-of-redis@cache.internal"}


@pytest.mark.parametrize("traced", [False, pytest.param(True, marks=pytest.mark.nightly)])
def test_variables_that_pytorch_writes_are_warned_of(processes: Processes, tmp_path: Path, *, traced: bool) -> None:
    """PyTorch puts variables into its artifacts, as SECURITY.md says; a warning names them, and no manifest has any."""
    store, trace = tmp_path / "store", {"TORCH_TRACE": str(tmp_path / "trace")} if traced else {}
    _, published = processes.run(
        step("run", model="doubling"), step("publish", url=str(store)), environment={**SECRET, **trace}
    )
    (manifest,) = (path.read_bytes() for path in store.rglob("*.msgpack"))
    assert b"s3cr3t" not in manifest
    assert not unseal(manifest).environment.recorded.keys() & SECRET.keys()
    artifacts = b"".join(zstandard.decompress(path.read_bytes()) for path in store.rglob("*.zst"))
    written = [value.encode() in artifacts for value in SECRET.values()]
    assert written == [traced or TorchVersion(torch.__version__) < "2.14"] * len(SECRET)
    warned = ["TORCHINDUCTOR_REDIS_URL, TRITON_API_KEY among them" in warning for warning in published["warnings"]]
    assert warned == [True] * any(written)
