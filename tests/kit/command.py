"""Run the command line: in this process, in one of its own, or on a terminal."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from click.testing import CliRunner, Result

from megacache._cli.app import app
from tests.kit.processes import REPOSITORY, TIMEOUT

PROGRAM = [sys.executable, "-m", "megacache"]


def run(*arguments: object, code: int = 0, typed: str | None = None) -> Result:
    """Run a command in this process, and see that it exits with a code."""
    done = CliRunner().invoke(
        app, list(map(str, arguments)), input=typed, prog_name="megacache", catch_exceptions=False
    )
    assert done.exit_code == code, done.output
    return done


def document(*arguments: object, code: int = 0) -> Any:
    """Run a command with `--json`, and give what it prints on stdout."""
    found = json.loads(run(*arguments, "--json", code=code).stdout)
    assert (found["format"], found["command"]) == (1, arguments[0])
    return found


def in_child(*arguments: object, environment: Mapping[str, str] | None = None) -> "subprocess.CompletedProcess[str]":
    """Run a command in a process of its own."""
    return subprocess.run(
        [*PROGRAM, *map(str, arguments)],
        cwd=REPOSITORY,
        env={**os.environ, **(environment or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )


def on_terminal(
    *arguments: object, typed: bytes = b"", environment: Mapping[str, str] | None = None
) -> tuple[int, str]:
    """Run a command on a terminal, type something when it asks, and give the exit code and all that it showed."""
    mine, theirs = os.openpty()
    child = subprocess.Popen(
        [*PROGRAM, *map(str, arguments)],
        cwd=REPOSITORY,
        env={**os.environ, "TERM": "xterm-256color", **(environment or {})},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    shown = b""
    try:
        while piece := os.read(mine, 4096):
            shown += piece
            if typed and b"[y/N]" in shown:
                os.write(mine, typed)
                typed = b""
    except OSError:  # Linux says so when the other end is closed
        pass
    finally:
        os.close(mine)
    return child.wait(TIMEOUT), shown.decode()
