"""Arguments and options that several commands share."""

import functools
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import click

from megacache._catalog import Places
from megacache._cli.selection import Selection
from megacache._runtime import Deadline
from megacache._settings import Settings
from megacache._store import Store, check_url, redacted, split_places
from megacache._trust import Keys
from megacache.errors import SettingsError

Command = TypeVar("Command", bound=Callable[..., Any])

url_argument = click.argument("url", metavar="URL")
optional_url = click.argument("url", metavar="[URL]", required=False)
key_option = click.option(
    "--key", metavar="KEY", help="File or URI of the private key; MEGACACHE_SIGNING_KEY if left out."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of a table.")


def _parse_options(ctx: click.Context, param: click.Parameter, path: str | None) -> Mapping[str, Any] | None:
    if path is None:
        return None
    try:
        found = json.loads(Path(path).read_text())
    except (OSError, ValueError) as error:
        raise click.BadParameter(f"{path}: {error}", ctx, param) from error
    if not isinstance(found, dict):
        raise click.BadParameter(f"{path}: not a JSON object", ctx, param)
    return found


def storage_options(name: str = "--storage-options", whose: str = "the store") -> Callable[[Command], Command]:
    """Let a file give the options of fsspec's filesystem, so that no secret stands on a command line."""
    return click.option(
        name,
        type=click.Path(exists=True, dir_okay=False),
        callback=_parse_options,
        metavar="FILE",
        help=f"JSON file with options of {whose} for fsspec: endpoint, credentials, …",
    )


def timeout_option(seconds: float) -> Callable[[Command], Command]:
    """Bound the whole call."""
    return click.option(
        "--timeout",
        type=click.FloatRange(min=0, min_open=True),
        default=seconds,
        show_default=True,
        metavar="SECONDS",
        help="Give up after this many seconds.",
    )


def with_policy(command: Command) -> Command:
    """Let a command name trusted keys: it is given a `TrustPolicy`, or None."""

    # `wraps` takes over the options that click has noted on the command so far.
    @functools.wraps(command)
    def trusting(*, keys: Keys, **others: Any) -> None:
        command(policy=keys.policy(Settings.read()), **others)

    return _with_trusted_keys(trusting)  # type: ignore[return-value]


def with_signing(command: Command) -> Command:
    """Let a command name trusted keys, and one to sign with: it is given `Keys`."""

    @functools.wraps(command)
    def signing(*, keys: Keys, key: str | None, **others: Any) -> None:
        command(keys=replace(keys, sign_with=key), **others)

    return key_option(_with_trusted_keys(signing))  # type: ignore[return-value]


def _with_trusted_keys(command: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(command)
    def trusting(*, trusted_keys: tuple[str, ...], trust_threshold: int | None, **others: Any) -> None:
        command(keys=Keys(trusted=trusted_keys or None, threshold=trust_threshold), **others)

    for option in (
        click.option(
            "--trust-threshold",
            type=click.IntRange(1),
            metavar="N",
            help="How many of them must have signed.",
        ),
        click.option(
            "--trusted-keys",
            multiple=True,
            type=click.Path(exists=True, dir_okay=False),
            metavar="FILE",
            help="Public key that must have signed; MEGACACHE_TRUSTED_KEYS if left out. May be given several times.",
        ),
    ):
        option(trusting)
    return trusting


def with_destination(command: Command) -> Command:
    """Let signatures be for the place to which a cache will be moved: the `Store` that a command is given says so."""

    @functools.wraps(command)
    def bound(*, store: Store, destination: str | None, **others: Any) -> None:
        command(store=store if destination is None else store.bound_for(chosen_url(destination)), **others)

    named = click.option(
        "--for",
        "destination",
        metavar="URL",
        help="The URL that signatures are made or checked for, if the cache will be moved there.",
    )
    return named(bound)  # type: ignore[return-value]


def with_selection(command: Command) -> Command:
    """Let a command work on some environments only: it is given a `Selection`."""

    @functools.wraps(command)
    def selecting(*, device: str | None, environment: str | None, mine: bool, **others: Any) -> None:
        command(selection=Selection(device=device, environment=environment, mine=mine), **others)

    for option in (
        click.option("--mine", is_flag=True, help="Only the environment of this machine; needs PyTorch."),
        click.option(
            "--environment",
            metavar="FINGERPRINT",
            help="Only this environment; the beginning of its fingerprint will do.",
        ),
        click.option("--device", metavar="DEVICE", help="Only this GPU type, as `megacache ls` shows it."),
    ):
        option(selecting)
    return selecting  # type: ignore[return-value]


def with_store(*, timeout: float, required: bool = True) -> Callable[[Command], Command]:
    """Let a command name a cache: it is given an open `Store`."""

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def opening(
            *, url: str | None, storage_options: Mapping[str, Any] | None, timeout: float, **others: Any
        ) -> None:
            command(store=open_store(url, storage_options, timeout), **others)

        for option in (timeout_option(timeout), storage_options(), url_argument if required else optional_url):
            option(opening)
        return opening  # type: ignore[return-value]

    return decorate


def with_places(*, timeout: float) -> Callable[[Command], Command]:
    """Let a command name a cache and the nearer places before it: it is given open `Places`."""

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def opening(
            *, url: str | None, storage_options: Mapping[str, Any] | None, timeout: float, **others: Any
        ) -> None:
            deadline = Deadline.after(timeout)
            places = Places.open(chosen_places(url), storage_options=storage_options, deadline=deadline)
            command(places=places, **others)

        for option in (timeout_option(timeout), storage_options(), optional_url):
            option(opening)
        return opening  # type: ignore[return-value]

    return decorate


def open_store(url: str | None, options: Mapping[str, Any] | None, timeout: float) -> Store:
    """Open the cache that is named, or else the one of `MEGACACHE_URL`, or else the default one."""
    return Store.open(chosen_url(url), storage_options=options, deadline=Deadline.after(timeout))


def chosen_places(url: str | None) -> tuple[str, ...]:
    """Choose the places, the nearest first; refuse a URL that is empty or misspelt."""
    if url is not None and not url.strip():
        raise SettingsError("the URL is empty", hint="is a variable unset that should hold it?")
    for place in split_places(url or ""):
        check_url(place)
    return Settings.read().places(url)


def chosen_url(url: str | None) -> str:
    """Choose one place: of those that MEGACACHE_URL names, the last, which is the cache itself."""
    places = chosen_places(url)
    if url is not None and len(places) > 1:
        raise SettingsError(f"{redacted(url)} names several places", hint=f"give one, such as {redacted(places[-1])}")
    return places[-1]


def refuse_if_read_only() -> None:
    """Let nothing that others may warm from be changed where that is switched off."""
    if Settings.read().read_only:
        raise SettingsError("MEGACACHE_READ_ONLY is set", hint="unset it to let this command write")
