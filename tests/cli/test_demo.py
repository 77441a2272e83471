"""The demo shows what it says."""

import re
import subprocess
import sys
from pathlib import Path

from tests.kit.documents import README, alike, blocks
from tests.kit.processes import REPOSITORY


def test_demo_starts_warm_and_tells_where_from(tmp_path: Path) -> None:
    """The demo ends well only if every graph hit and all bits are the same; it prints the table of the README."""
    done = subprocess.run(
        [sys.executable, "-m", "megacache", "demo", str(tmp_path / "store")],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert re.search(r"graphs found / compiled +0 / 1 +1 / 0", done.stdout)
    assert alike(done.stdout) == alike(blocks(README, "text")[0])
    assert str(tmp_path / "store") in done.stderr
