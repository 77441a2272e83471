"""The demo shows what it says."""

import re
import subprocess
import sys
from pathlib import Path

from tests.kit.processes import REPOSITORY


def test_demo_starts_warm_and_tells_where_from(tmp_path: Path) -> None:
    """The demo ends well only if the second process hit every graph and computed the same bits; it prints a table."""
    done = subprocess.run(
        [sys.executable, "-m", "megacache", "demo", str(tmp_path / "store")],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "seconds to first output" in done.stdout
    assert re.search(r"graphs found / compiled +0 / 1 +1 / 0", done.stdout)
    assert str(tmp_path / "store") in done.stderr
