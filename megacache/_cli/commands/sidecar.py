"""`megacache sidecar`."""

import http.client
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence
from pathlib import Path

import click

from megacache._cli.options import chosen_places
from megacache._cli.output import say
from megacache._cli.program import Finite, ProgramCommand, compact_above, end_like, named, program_argument, wait_for
from megacache._settings import AutostartSettings
from megacache._store import keep_secret, lasting_url, without_secrets
from megacache.integrations import autostart_environment

_POLL_SECONDS = 0.5
_REQUEST_SECONDS = 5.0


@click.command("sidecar", cls=ProgramCommand)
@click.option("--ready-url", required=True, metavar="URL", help="Answers 2xx once the server is ready.")
@click.option(
    "--ready-timeout",
    type=Finite(0, min_open=True),
    default=1800,
    show_default=True,
    metavar="SECONDS",
    help="Stop asking after this; then publish only at the end.",
)
@click.option("--warm-timeout", type=Finite(0), metavar="SECONDS", help="Wait at most this long for the store.")
@click.option(
    "--exit-timeout", type=Finite(0), metavar="SECONDS", help="Wait at most this long for a publication at the end."
)
@compact_above
@click.option("--quiet", is_flag=True, help="Report only what goes wrong.")
@click.argument("url", metavar="URL")
@program_argument
def sidecar_command(
    *, url: str, program: Sequence[str], ready_url: str, ready_timeout: float, quiet: bool, **others: float | None
) -> None:
    """Run a server warm, and publish once it is ready.

    It is `megacache run` for servers that report by themselves when they are ready. A server that never becomes ready
    is left running, and publishes at its end. Exit code, input, output and signals are the server's own.

    \b
    Example:
      megacache sidecar s3://bucket/llama/v1 --ready-url http://127.0.0.1:8000/health -- vllm serve llama
    """  # noqa: D301 - as click wants it
    if not _is_http_url(ready_url):
        raise click.BadParameter(f"{ready_url} is not an http URL", param_hint="--ready-url")
    keep_secret(ready_url)
    path, command = named(program)
    given = {name: value for name, value in others.items() if value is not None}
    with tempfile.TemporaryDirectory(prefix="megacache-sidecar-") as folder:
        sign = Path(folder) / "ready"
        settings = AutostartSettings.read()
        settings = settings.changed(**given, log="warning" if quiet else settings.log or "info", publish_when=str(sign))
        environment = autostart_environment(settings, {"MEGACACHE_URL": lasting_url(chosen_places(url))})

        def watch(child: "subprocess.Popen[bytes]") -> None:
            arguments = child, ready_url, ready_timeout, sign
            threading.Thread(target=_wait_until_ready, args=arguments, daemon=True).start()

        code = wait_for(path, command, environment, watch)
    end_like(code)


def _is_http_url(url: str) -> bool:
    # `urllib` requests no URL with characters that have to be percent-encoded.
    try:
        parts = urllib.parse.urlsplit(url)
        named = bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
    return named and parts.scheme in {"http", "https"} and url.isascii() and url.isprintable() and " " not in url


def _wait_until_ready(child: "subprocess.Popen[bytes]", url: str, seconds: float, sign: Path) -> None:
    """Create the file `sign` once the server is ready."""
    started = time.monotonic()
    while child.poll() is None:
        answer = _answer(url)
        if answer is None:
            sign.touch()
            say("ready after {} s: publishing what was compiled", f"{time.monotonic() - started:.1f}")
            return
        if time.monotonic() >= started + seconds:
            facts = f"{seconds:g}", without_secrets(answer)
            say("[bold yellow]not ready[/] within {} s: publishing only at the end; the last answer was: {}", *facts)
            return
        time.sleep(_POLL_SECONDS)


def _answer(url: str) -> str | None:
    """Request the URL; give the answer if the server is not ready, else None."""
    # The server is on this machine: a proxy that the environment names would not reach it.
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(url, timeout=_REQUEST_SECONDS) as answer:
            ready = http.client.OK <= answer.status < http.client.MULTIPLE_CHOICES
            return None if ready else f"HTTP {answer.status}"
    except urllib.error.HTTPError as error:
        return f"HTTP {error.code}"
    except (OSError, http.client.HTTPException, ValueError) as error:
        return str(getattr(error, "reason", error)) or type(error).__name__
