"""`megacache env`."""

import click

from megacache import _compiler
from megacache._bundle import fact_text
from megacache._cli.machine import Here, need_torch
from megacache._cli.options import json_option
from megacache._cli.output import emit, print_table


@click.command("env")
@json_option
def env_command(*, as_json: bool) -> None:
    """Show the facts that decide which bundles fit this machine.

    Their fingerprint is the name of its environment in a cache. Needs PyTorch.

    \b
    Example:
      megacache env --json > here.json
    """  # noqa: D301 - as click wants it
    need_torch()
    found = Here(environment=_compiler.current_environment(), guard=_compiler.toolchain())
    if as_json:
        emit(found.to_json(), command="env")
        return
    rows = [("device", found.environment.device), ("place in a cache", found.prefix.path)]
    rows += [(f"fact {name}", fact_text(value)) for name, value in found.environment.facts.items() if value]
    rows += [(f"recorded {name}", fact_text(value)) for name, value in found.environment.recorded.items() if value]
    rows += [(f"not read: {name}", error) for name, error in found.environment.unread.items()]
    rows += [(f"files need {name}", fact_text(value)) for name, value in found.guard.items() if value]
    print_table(("ENVIRONMENT", found.environment.fingerprint), rows)
