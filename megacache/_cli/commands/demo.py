"""`megacache demo`."""

import json
import subprocess
import tempfile
from typing import Any

import click

from megacache._cli.exit_codes import EXIT_NO
from megacache._cli.machine import child_command, need_torch
from megacache._cli.options import chosen_url, json_option, optional_url, refuse_if_read_only
from megacache._cli.output import emit, print_table, say
from megacache._settings import child_environment, default_url
from megacache.errors import CompilerError

Answer = dict[str, Any]


@click.command("demo")
@optional_url
@json_option
def demo_command(*, url: str | None, as_json: bool) -> None:
    """Show on a small model what a warm start is worth.

    One process compiles it and publishes, a second one starts warm. Each process begins with an empty cache folder, and
    the second one must compute the same bits as the first. Needs PyTorch, and on a CPU a C++ compiler; takes half a
    minute. What is published goes to URL, by default to the store in your cache folder, and never to that of
    MEGACACHE_URL: others use that cache.

    \b
    Example:
      megacache demo
    """  # noqa: D301 - as click wants it
    need_torch()
    refuse_if_read_only()
    place = default_url() if url is None else chosen_url(url)
    say("compiling cold: this takes a while")
    cold = _run("cold", place)
    say("starting warm")
    warm = _run("warm", place)
    if as_json:
        emit({"url": cold["url"], "cold": cold, "warm": warm}, command="demo")
    else:
        _print(cold, warm)
    if cold["digest"] != warm["digest"]:
        say("the outputs differ")
    elif warm["misses"] or not warm["hits"]:
        say("the second process did not start warm")
    else:
        return
    click.get_current_context().exit(EXIT_NO)


def _run(mode: str, url: str) -> Answer:
    with tempfile.TemporaryDirectory(prefix="megacache-demo-") as folder:
        done = subprocess.run(
            child_command("megacache._cli.demo_program", mode),
            env=child_environment({"MEGACACHE_URL": url, "TORCHINDUCTOR_CACHE_DIR": folder}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
    if done.returncode:
        raise CompilerError(
            f"the {mode} process ended with {done.returncode}",
            hint="its output is above; on a CPU, torch.compile needs a C++ compiler such as g++",
        )
    # Libraries may have printed something before.
    answer: Answer = json.loads(done.stdout.splitlines()[-1])
    return answer


def _print(cold: Answer, warm: Answer) -> None:
    rows = [
        ("seconds to first output", f"{cold['seconds']:.1f}", f"{warm['seconds']:.1f}"),
        ("graphs found / compiled", f"{cold['hits']} / {cold['misses']}", f"{warm['hits']} / {warm['misses']}"),
        ("output", cold["digest"][:12], warm["digest"][:12]),
    ]
    print_table(("", "COLD", "WARM"), rows, numbers=("COLD", "WARM"))
    say("warm start: {}", warm["loaded"])
    say("published: {}", cold["published"])
    say("stored at {}", cold["url"])
