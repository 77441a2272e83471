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

from megacache._cli.options import chosen_url
from megacache._cli.output import say
from megacache._cli.program import Finite, ProgramCommand, end_like, named, program_argument, wait_for
from megacache._settings import AutostartSettings
from megacache._store import lasting_url
from megacache.integrations._launch import autostart_environment

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
    help="Publish nothing if it is not ready by then.",
)
@click.option("--warm-timeout", type=Finite(0), metavar="SECONDS", help="Wait so long for the store.")
@click.option("--exit-timeout", type=Finite(0), metavar="SECONDS", help="Delay the end by at most so long.")
@click.option("--quiet", is_flag=True, help="Tell only what goes wrong.")
@click.argument("url", metavar="URL")
@program_argument
def sidecar_command(
    *, url: str, program: Sequence[str], ready_url: str, ready_timeout: float, quiet: bool, **seconds: float | None
) -> None:
    """Run a server warm, and publish once it is ready.

    Nothing is published sooner. It is `megacache run` for servers that tell by themselves when their start is over. A
    server that never becomes ready publishes nothing; it is left running. Exit code, input, output and signals are the
    server's own.

    \b
    Example:
      megacache sidecar s3://bucket/llama/v1 --ready-url http://127.0.0.1:8000/health -- vllm serve llama
    """  # noqa: D301 - as click wants it
    if not _is_http_url(ready_url):
        raise click.BadParameter(f"{ready_url} is no http URL", param_hint="--ready-url")
    path, command = named(program)
    given = {name: value for name, value in seconds.items() if value is not None}
    with tempfile.TemporaryDirectory(prefix="megacache-sidecar-") as folder:
        sign = Path(folder) / "ready"
        settings = AutostartSettings.read()
        settings = settings.changed(**given, log="warning" if quiet else settings.log or "info", publish_when=str(sign))
        environment = autostart_environment(settings, {"MEGACACHE_URL": lasting_url(chosen_url(url))})

        def look(child: "subprocess.Popen[bytes]") -> None:
            asked = child, ready_url, ready_timeout, sign
            threading.Thread(target=_wait_until_ready, args=asked, daemon=True).start()

        code = wait_for(path, command, environment, look)
    end_like(code)


def _is_http_url(url: str) -> bool:
    """Tell whether a URL can be asked: what lies outside of ASCII has to be percent-encoded."""
    try:
        parts = urllib.parse.urlsplit(url)
        named = bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
    return named and parts.scheme in {"http", "https"} and url.isascii() and url.isprintable() and " " not in url


def _wait_until_ready(child: "subprocess.Popen[bytes]", url: str, seconds: float, sign: Path) -> None:
    """Put the sign up once the server answers."""
    started = time.monotonic()
    while child.poll() is None:
        answer = _answer(url)
        if answer is None:
            sign.touch()
            say("ready after {} s: publishing what was compiled", f"{time.monotonic() - started:.1f}")
            return
        if time.monotonic() >= started + seconds:
            told = f"{seconds:g}", answer
            say("[bold yellow]not ready[/] within {} s: nothing is published; the last answer was: {}", *told)
            return
        time.sleep(_POLL_SECONDS)


def _answer(url: str) -> str | None:
    """Ask the server; give what it answered if it is not ready."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(url, timeout=_REQUEST_SECONDS) as answer:
            ready = http.client.OK <= answer.status < http.client.MULTIPLE_CHOICES
            return None if ready else f"HTTP {answer.status}"
    except urllib.error.HTTPError as error:
        return f"HTTP {error.code}"
    except (OSError, http.client.HTTPException, ValueError) as error:
        return str(getattr(error, "reason", error)) or type(error).__name__
