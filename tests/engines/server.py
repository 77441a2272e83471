"""A real vLLM server, seen from outside: what it answers, what it logs, what lies in its store."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.kit.servers import HOST, free_port

_READY_SECONDS, _SAYS_SECONDS, _END_SECONDS = 400.0, 120.0, 60.0
NOTHING: Mapping[str, str] = {}
_OWN = ("MEGACACHE_", "VLLM_", "TORCH")
_SMALL = (
    *("--dtype", "bfloat16", "--max-model-len", "256", "--max-num-seqs", "4"),
    *("--max-num-batched-tokens", "256", "--gpu-memory-utilization", "0.5"),
)


class ServerFolders:
    """The folders of a container, which are empty at each start, and the store, which stays."""

    def __init__(self, folder: Path) -> None:
        self.store = folder / "store"
        self.plugins = folder / "plugins"
        self._container = folder / "container"

    def emptied(self) -> Path:
        """Give a container as it is after a restart."""
        shutil.rmtree(self._container, ignore_errors=True)
        return self.container()

    def container(self) -> Path:
        """Give the container as it is."""
        for name in ("home", "tmp", "inductor", "vllm"):
            (self._container / name).mkdir(parents=True, exist_ok=True)
        return self._container

    def bundles(self) -> list[str]:
        """Name the bundles in the store."""
        return sorted(path.stem for path in self.store.glob("*/*/bundles/*.msgpack"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """One start of the server."""

    popen: "subprocess.Popen[bytes]"
    url: str
    log: Path

    def said(self) -> str:
        """Give its log so far."""
        return self.log.read_text(errors="replace")

    def wait_until_it_says(self, words: str, *, times: int = 1) -> None:
        """Wait for a line of its log, which each of several workers may write."""
        _wait(lambda: self.said().count(words) >= times, _SAYS_SECONDS, self)

    def complete(self, prompt: str) -> str:
        """Ask for the most likely continuation."""
        asked = {"model": "model", "prompt": prompt, "max_tokens": 8, "temperature": 0}
        answer: dict[str, Any] = json.loads(_get(f"{self.url}/v1/completions", json.dumps(asked).encode()))
        return str(answer["choices"][0]["text"])

    def end(self, number: signal.Signals) -> int:
        """Tell it to end as a user or an orchestrator does, and give its exit status."""
        self.popen.send_signal(number)
        return self.popen.wait(_END_SECONDS)


@contextmanager
def serving(
    model: Path,
    folders: ServerFolders,
    *before: str,
    options: Sequence[str] = (),
    url: bool = True,
    quiet: float = 3,
    variables: Mapping[str, str] = NOTHING,
    emptied: bool = True,
) -> Iterator[Server]:
    """Start `vllm serve` in an empty container, with `before` in front of the command; wait until it answers.

    In `before`, `{port}` stands for the port of the server.
    """
    container, port = folders.emptied() if emptied else folders.container(), free_port()
    own = _variables(container, folders.store if url else None)
    environment = {**own, "MEGACACHE_PUBLISH_AFTER": f"{quiet:g}", **variables}
    command: Sequence[str] = (
        *(word.format(port=port) for word in before),
        *(sys.executable, "-m", "vllm.entrypoints.cli.main", "serve", str(model), "--served-model-name", "model"),
        *("--host", HOST, "--port", str(port), *_SMALL, *options),
    )
    log = container / "log"
    with log.open("wb") as output:
        popen = subprocess.Popen(command, env=environment, stdout=output, stderr=output, start_new_session=True)
    server = Server(popen=popen, url=f"http://{HOST}:{port}", log=log)
    try:
        _wait(lambda: _answers(server.url), _READY_SECONDS, server)
        yield server
    finally:
        with suppress(ProcessLookupError):
            os.killpg(popen.pid, signal.SIGKILL)
        popen.wait(_END_SECONDS)


def run_offline(model: Path, folders: ServerFolders) -> str:
    """Generate a text by `LLM(…)` in an empty container, all in one process; give what it has said."""
    variables = _variables(folders.emptied(), folders.store) | {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
    done = subprocess.run(
        [sys.executable, "-c", _OFFLINE, str(model)],
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=_READY_SECONDS,
        check=False,
    )
    said = done.stdout.decode(errors="replace")
    assert done.returncode == 0, said[-4000:]
    return said


_OFFLINE = """
import sys
from vllm import LLM, SamplingParams
model = LLM(
    sys.argv[1], dtype="bfloat16", max_model_len=256, max_num_seqs=4, max_num_batched_tokens=256,
    gpu_memory_utilization=0.5,
)
(done,) = model.generate(["hello"], SamplingParams(max_tokens=8, temperature=0))
print("continued:", ascii(done.outputs[0].text))
"""


def _variables(container: Path, store: Path | None) -> dict[str, str]:
    """Give the environment of a container, with the URL of the store if there is one."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith(_OWN)}
    return variables | {
        "HOME": str(container / "home"),
        "TMPDIR": str(container / "tmp"),
        "TORCHINDUCTOR_CACHE_DIR": str(container / "inductor"),
        "VLLM_CACHE_ROOT": str(container / "vllm"),
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "HF_HUB_OFFLINE": "1",
        "MEGACACHE_PUBLISH_AFTER": "3",
        **({"MEGACACHE_URL": str(store)} if store else {}),
    }


def _wait(done: Any, seconds: float, server: Server) -> None:
    ends = time.monotonic() + seconds
    while not done():
        assert server.popen.poll() is None, f"the server ended\n{server.said()[-4000:]}"
        assert time.monotonic() < ends, f"not within {seconds:g} s\n{server.said()[-4000:]}"
        time.sleep(0.2)


def _answers(url: str) -> bool:
    try:
        _get(f"{url}/health")
    except OSError:
        return False
    return True


def _get(url: str, data: bytes | None = None) -> bytes:
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        content: bytes = answer.read()
    return content
