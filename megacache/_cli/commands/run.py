"""`megacache run`."""

import os
import tempfile
from collections.abc import Sequence

import click

from megacache import _compiler
from megacache._cli.exit_codes import EXIT_TOO_FEW_HITS
from megacache._cli.options import chosen_places
from megacache._cli.output import say
from megacache._cli.program import (
    Finite,
    ProgramCommand,
    become,
    compact_above,
    end_like,
    named,
    program_argument,
    wait_for,
)
from megacache._settings import AutostartSettings, folders_of
from megacache._store import lasting_url
from megacache.errors import SettingsError
from megacache.integrations import HitRate, autostart_environment, hit_rate


@click.command("run", cls=ProgramCommand)
@click.option(
    "--min-hit-rate", type=Finite(0, 1), metavar="SHARE", help="Exit with 5 if a smaller share of lookups hit."
)
@click.option("--warm-timeout", type=Finite(0), metavar="SECONDS", help="Wait at most this long for the store.")
@click.option(
    "--wait", type=Finite(0), metavar="SECONDS", help="Wait at most this long for another worker that compiles."
)
@click.option(
    "--publish-after", type=Finite(0), metavar="SECONDS", help="Publish after this long without a compilation."
)
@click.option(
    "--exit-timeout", type=Finite(0), metavar="SECONDS", help="Wait at most this long for a publication at the end."
)
@click.option(
    "--folder", "folders", multiple=True, metavar="NAME[=PATH]", help="Include another compiler's cache; repeatable."
)
@click.option("--read-only", is_flag=True, help="Publish nothing.")
@compact_above
@click.option("--quiet", is_flag=True, help="Report only what goes wrong.")
@click.argument("url", metavar="URL")
@program_argument
def run_command(
    *,
    url: str,
    program: Sequence[str],
    min_hit_rate: float | None,
    folders: Sequence[str],
    read_only: bool,
    quiet: bool,
    **others: float | None,
) -> None:
    """Run any Python program warm, and publish what it compiles.

    Every Python process that the program starts loads what fits before its first compilation. It publishes in the
    background once nothing was compiled for a while, and at its end, whether it succeeds or fails; a process that is
    killed, or ends by os._exit, publishes nothing then. Exit code, input, output and signals are the program's own.

    With --wait, of the programs that find nothing published, one compiles at once; the others wait for what it
    publishes, and compile themselves if that takes longer. Use it for workers that do not depend on each other.

    With --folder, what another compiler keeps in a folder travels, too: cpp_extension, cute_dsl, deep_gemm, flashinfer
    and tilelang have known ones; any other name needs a path. MEGACACHE_FOLDERS does the same.

    With --min-hit-rate, a program that succeeds ends with 5 if its processes made no lookups in PyTorch's caches, or if
    a smaller share of them hit.

    \b
    Example:
      megacache run s3://bucket/flux/v1 -- python serve.py --port 8000
    """  # noqa: D301 - as click wants it
    path, command = named(program)
    given = {name: value for name, value in others.items() if value is not None}
    settings = AutostartSettings.read()
    settings = settings.changed(**given, log="warning" if quiet else settings.log or "info")
    changes = {"MEGACACHE_URL": lasting_url(chosen_places(url)), **({"MEGACACHE_READ_ONLY": "1"} if read_only else {})}
    if folders:
        changes["MEGACACHE_FOLDERS"] = _checked(folders)
    # Without a rate to judge there is nothing to do after the program: no process of ours stays in between.
    if min_hit_rate is None:
        become(path, command, autostart_environment(settings, changes))
    with tempfile.TemporaryDirectory(prefix="megacache-run-") as folder:
        receipts = os.pathsep.join(filter(None, [settings.receipts, folder]))
        code = wait_for(path, command, autostart_environment(settings.changed(receipts=receipts), changes))
        # A program that fails ends with its own code, whatever its hit rate.
        if not code:
            code = _judged(hit_rate(folder), min_hit_rate)
    end_like(code)


def _checked(folders: Sequence[str]) -> str:
    """Write folders as `MEGACACHE_FOLDERS` has them, with absolute paths, for the program may work elsewhere."""
    named = {name: path and os.path.abspath(path) for name, path in folders_of(folders).items()}  # noqa: PTH100
    if wrong := [path for path in named.values() if os.pathsep in path]:
        raise SettingsError(f"{wrong[0]} cannot be the path of a folder: it holds a {os.pathsep!r}", hint="use a link")
    # A name that means nothing is told here, and not by every process.
    _compiler.register_folders(named)
    return os.pathsep.join(f"{name}={path}" if path else name for name, path in named.items())


def _judged(found: HitRate, least: float) -> int:
    if found.rate is None:
        say("[bold red]hit rate:[/] no graph was looked up, {} was asked for", least)
        return EXIT_TOO_FEW_HITS
    processes = f"{found.processes} process{'es' if found.processes != 1 else ''}"
    numbers = f"{found.rate:.3f}", found.hit, found.total, processes
    say("hit rate: {}: {} of {} lookups hit, in {}", *numbers)
    if found.rate >= least:
        return 0
    say("[bold red]error:[/] {} was asked for; `megacache.explain()` in the program says why it missed", least)
    return EXIT_TOO_FEW_HITS
