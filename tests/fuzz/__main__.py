"""Feed every reader under atheris: `python -m tests.fuzz --inputs 1000000 [READER …]`.

Each reader has a process of its own, bounded in memory and in the time for one input. It ends with 1 if one of them let
an exception out or went beyond these bounds; the input is then in the folder of `--keep`.
"""

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.fuzz.options import parser
from tests.fuzz.readers import READERS

MEMORY_MB = 1_024
SECONDS_AN_INPUT = 10
LONGEST_INPUT = 1 << 16
_MEMORY = Path("/dev/shm")
"""Where readers write a million files in no time, if there is such a place."""


def main() -> int:
    """Divide the inputs among the readers, and tell what became of them."""
    asked = parser().parse_args()
    names = asked.readers or list(READERS)
    asked.keep.mkdir(parents=True, exist_ok=True)
    each = -(-asked.inputs // len(names))
    done = [feed(name, each, asked.seconds, asked.keep) for name in names]
    sys.stdout.write(f"{sum(runs for runs, _ in done):,} inputs in all\n")
    return int(any(code for _, code in done))


def feed(name: str, inputs: int, seconds: int, keep: Path) -> tuple[int, int]:
    """Feed one reader; give how many inputs it had, and its exit code."""
    options = {
        "atheris_runs": inputs,
        "max_total_time": seconds,
        "timeout": SECONDS_AN_INPUT,
        "rss_limit_mb": MEMORY_MB,
        "max_len": LONGEST_INPUT,
        "artifact_prefix": f"{keep}/{name}-",
    }
    began = time.monotonic()
    command = [sys.executable, "-m", "tests.fuzz.child", name, *(f"-{key}={value}" for key, value in options.items())]
    with tempfile.TemporaryDirectory(dir=_MEMORY if os.access(_MEMORY, os.W_OK) else None) as folder:
        variables = {**os.environ, "TMPDIR": folder}
        child = subprocess.run(command, env=variables, capture_output=True, text=True, errors="replace", check=False)
    told = child.stdout + child.stderr
    runs = _most(r"^(?:Done |#)(\d+)", told)
    line = f"{name:12} {runs:>9,} inputs, {time.monotonic() - began:6.0f} s, {_coverage(told)}"
    sys.stdout.write(f"{line}, {f'FAILED with {child.returncode}' if child.returncode else 'ok'}\n")
    if child.returncode:
        sys.stdout.write(told[-4_000:])
    sys.stdout.flush()
    return runs, child.returncode


def _coverage(told: str) -> str:
    edges, peak = _most(r"cov: (\d+)", told), _most(r"rss: (\d+)", told)
    return f"{edges} edges, peak {peak} MB"


def _most(pattern: str, told: str) -> int:
    return max(map(int, re.findall(pattern, told, re.MULTILINE)), default=0)


if __name__ == "__main__":
    sys.exit(main())
