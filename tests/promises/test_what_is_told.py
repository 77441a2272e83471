"""What a bundle tells of the process that made it, beside what it compiled."""

from pathlib import Path

import zstandard

from megacache._bundle import unseal
from tests.kit.processes import Processes, step

SECRET = {"TRITON_API_KEY": "s3cr3t-of-triton", "TORCHINDUCTOR_REDIS_URL": "redis://me:s3cr3t-of-redis@cache.internal"}


def test_variables_that_pytorch_writes_are_warned_of(processes: Processes, tmp_path: Path) -> None:
    """PyTorch puts variables into its artifacts, as SECURITY.md says; a warning names them, and no manifest has any."""
    _, published = processes.run(
        step("run", model="doubling"), step("publish", url=str(tmp_path)), environment=dict(SECRET)
    )
    (warning,) = published["warnings"]
    assert "TORCHINDUCTOR_REDIS_URL, TRITON_API_KEY among them" in warning
    (manifest,) = (path.read_bytes() for path in tmp_path.rglob("*.msgpack"))
    assert b"s3cr3t" not in manifest
    assert not unseal(manifest).environment.recorded.keys() & SECRET.keys()
    artifacts = b"".join(zstandard.decompress(path.read_bytes()) for path in tmp_path.rglob("*.zst"))
    assert all(value.encode() in artifacts for value in SECRET.values())
