"""The options of the fuzzer."""

import argparse
from pathlib import Path


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    command = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Feed readers under atheris.")
    command.add_argument("--inputs", type=int, default=1_000_000, help="of all readers together")
    command.add_argument(
        "--seconds", type=int, default=3_600, help="after which each reader ends, if it has not before"
    )
    command.add_argument("--keep", type=Path, default=Path("build/fuzz"), help="folder for an input that was too much")
    command.add_argument("readers", nargs="*", metavar="READER", help="as in `tests/fuzz/readers.py`; all by default")
    return command
