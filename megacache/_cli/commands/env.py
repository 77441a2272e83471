"""`megacache env`."""

from dataclasses import asdict

import click

from megacache import _compiler
from megacache._bundle import fact_text
from megacache._cli.machine import Here, need_torch
from megacache._cli.options import json_option
from megacache._cli.output import emit, print_table
from megacache._settings import documented_variables

_UNSET = "unset"


@click.command("env")
@click.option("--variables", is_flag=True, help="Show the variables that megacache reads instead; needs no PyTorch.")
@json_option
def env_command(*, variables: bool, as_json: bool) -> None:
    """Show the facts that decide which bundles fit this machine.

    Their fingerprint is the name of its environment in a cache. Needs PyTorch.

    With --variables, show every environment variable that megacache reads: its value, its default and what it is for.

    \b
    Example:
      megacache env --json > here.json
    """  # noqa: D301 - as click wants it
    if variables:
        _tell_variables(as_json=as_json)
    else:
        _tell_environment(as_json=as_json)


def _tell_variables(*, as_json: bool) -> None:
    if as_json:
        emit({"variables": list(map(asdict, documented_variables()))}, command="env")
        return
    rows = [(one.name, one.value or _UNSET, one.default or _UNSET, one.meaning) for one in documented_variables()]
    print_table(("VARIABLE", "VALUE", "DEFAULT", "MEANING"), rows)


def _tell_environment(*, as_json: bool) -> None:
    need_torch()
    found = Here(environment=_compiler.current_environment(), guard=_compiler.toolchain())
    if as_json:
        emit(found.to_json(), command="env")
        return
    rows = [("device", found.environment.device), ("place in a cache", found.prefix.path)]
    rows += [("place for any CPU", prefix.path) for prefix in found.prefixes[1:]]
    rows += [(f"fact {name}", fact_text(value)) for name, value in found.environment.facts.items() if value]
    rows += [(f"recorded {name}", fact_text(value)) for name, value in found.environment.recorded.items() if value]
    rows += [(f"not read: {name}", error) for name, error in found.environment.unread.items()]
    rows += [(f"files need {name}", fact_text(value)) for name, value in found.guard.items() if value]
    print_table(("ENVIRONMENT", found.environment.fingerprint), rows)
