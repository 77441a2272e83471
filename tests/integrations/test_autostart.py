"""Programs without a line for megacache start warm, publish, and behave as ever."""

import ast
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from megacache._bundle import unseal
from megacache._catalog import Inventory
from megacache.integrations import site
from megacache.integrations._lifecycle import pause
from tests.kit.builders import open_store
from tests.kit.processes import REPOSITORY, Processes
from tests.kit.servers import free_port

RUN = (sys.executable, "-m", "megacache", "run")
SIDECAR = (sys.executable, "-m", "megacache", "sidecar")
PROGRAM = (sys.executable, "-m", "tests.kit.program")
SECONDS = 240.0

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(processes: Processes) -> Iterator[Start]:
    """Start commands with an empty cache folder each, and end those that are left."""
    started: list[subprocess.Popen[str]] = []

    def begin(*command: str, **variables: str) -> "subprocess.Popen[str]":
        folder = str(processes.new_folder())
        started.append(
            subprocess.Popen(
                command,
                cwd=REPOSITORY,
                env={
                    **os.environ,
                    "TORCHINDUCTOR_CACHE_DIR": folder,
                    "TORCHINDUCTOR_COMPILE_THREADS": "1",
                    **variables,
                },
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        return started[-1]

    yield begin
    for popen in started:
        if popen.poll() is None:
            popen.kill()
            popen.communicate()


def ended(popen: "subprocess.Popen[str]", told: str = "") -> tuple[int, str, str]:
    """Wait for a process; give its exit code, stdout and stderr."""
    stdout, stderr = popen.communicate(told, timeout=SECONDS)
    return popen.returncode, stdout, stderr


def bundles(store: Path) -> int:
    """Count the bundles in a store."""
    return sum(len(holding.manifests) for holding in Inventory.of(open_store(store.as_uri())).holdings)


def holds_root(store: Path, root: str) -> bool:
    """Tell whether a bundle in a store holds files of a root."""
    manifests = [unseal(path.read_bytes()) for path in store.glob("*/*/bundles/*.msgpack")]
    return any(file.root == root for manifest in manifests for file in manifest.files.index)


def until(condition: Callable[[], bool]) -> None:
    """Wait for something to become true."""
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_program_starts_warm_and_remains_its_own(start: Start, tmp_path: Path) -> None:
    """The first run publishes and fails for its hit rate, the second hits; input, output and arguments are theirs."""
    command = (*RUN, "--min-hit-rate", "0.9", str(tmp_path / "store"), "--", *PROGRAM, "once", "--flag", "--", "x")
    code, stdout, stderr = ended(start(*command), "input")
    assert (code, "hit rate: 0.000" in stderr) == (5, True), stderr
    first = stdout
    code, stdout, stderr = ended(start(*command), "input")
    assert (code, stdout) == (0, first), stderr
    assert stdout.split()[1:] == ["--flag", "--", "x", "input"]
    assert "hit rate: 1.000: 2 of 2" in stderr
    assert bundles(tmp_path / "store") == 1


@pytest.mark.parametrize(
    ("way", "code"),
    [
        ("exception", 1),
        *(pytest.param(way, 7, marks=pytest.mark.nightly) for way in ("exit", "SystemExit")),
        pytest.param("interrupt", -signal.SIGINT, marks=pytest.mark.nightly),
    ],
)
def test_program_that_fails_publishes(start: Start, tmp_path: Path, way: str, code: int) -> None:
    """However a program ends, its end goes out as it is, its store has what it compiled, and the next start hits."""
    store = str(tmp_path / "store")
    options = ("--min-hit-rate", "0") if way == "exit" else ()
    done, _, stderr = ended(start(*RUN, *options, store, "--", *PROGRAM, "end_by", way))
    assert (done, bundles(tmp_path / "store")) == (code, 1), stderr
    done, _, stderr = ended(start(*RUN, "--min-hit-rate", "1", store, "--", *PROGRAM, "once"))
    assert (done, "hit rate: 1.000: 2 of 2" in stderr) == (0, True), stderr


def test_programs_merge_what_they_publish(start: Start, tmp_path: Path) -> None:
    """With `--compact-above`, the second of two unchanged programs leaves one bundle, which serves both."""
    store = str(tmp_path / "store")
    for program in (["once"], ["workers", "fork", "3"]):
        done, _, stderr = ended(start(*RUN, "--compact-above", "1", store, "--", *PROGRAM, *program))
        assert done == 0, stderr
    assert len(list((tmp_path / "store").glob("*/*/bundles/*.superseded"))) == 2
    done, _, stderr = ended(start(*RUN, "--min-hit-rate", "1", store, "--", *PROGRAM, "once"))
    assert (done, "hit rate: 1.000: 2 of 2" in stderr) == (0, True), stderr


@pytest.mark.parametrize(
    ("way", "code"), [pytest.param("os._exit", 7, marks=pytest.mark.nightly), ("kill", -signal.SIGKILL)]
)
def test_end_without_python_publishes_nothing(start: Start, tmp_path: Path, way: str, code: int) -> None:
    """A process that ends before Python can run once more leaves the store as it is."""
    done, _, stderr = ended(start(*RUN, str(tmp_path / "store"), "--", *PROGRAM, "end_by", way))
    assert (done, bundles(tmp_path / "store")) == (code, 0), stderr


@pytest.mark.parametrize(
    "options",
    [
        pytest.param((), id="alone"),
        pytest.param(("--min-hit-rate", "0"), id="below its parent", marks=pytest.mark.nightly),
    ],
)
def test_sigterm_publishes_and_ends(start: Start, tmp_path: Path, options: tuple[str, ...]) -> None:
    """A server that is told to terminate publishes first, and dies of the signal."""
    popen = start(*RUN, *options, str(tmp_path / "store"), *PROGRAM, "serve")
    assert popen.stdout is not None
    popen.stdout.readline()
    popen.send_signal(signal.SIGTERM)
    code, _, stderr = ended(popen)
    assert code == -signal.SIGTERM, stderr
    assert bundles(tmp_path / "store") == 1


def test_handler_of_the_program_stays(start: Start, tmp_path: Path) -> None:
    """A program that handles SIGTERM itself does so, and what it compiled is published as it ends."""
    popen = start(*RUN, str(tmp_path / "store"), *PROGRAM, "serve", "yes")
    assert popen.stdout is not None
    popen.stdout.readline()
    popen.send_signal(signal.SIGTERM)
    code, _, stderr = ended(popen)
    assert code == 0, stderr
    assert bundles(tmp_path / "store") == 1


def test_server_that_borrows_the_signal_publishes(start: Start, tmp_path: Path) -> None:
    """A server that handles SIGTERM before it compiles, and raises it again at its end, loses nothing."""
    popen = start(*RUN, str(tmp_path / "store"), *PROGRAM, "serve_late")
    assert popen.stdout is not None
    popen.stdout.readline()
    popen.send_signal(signal.SIGTERM)
    code, _, stderr = ended(popen)
    assert code == -signal.SIGTERM, stderr
    assert bundles(tmp_path / "store") == 1


def test_quiet_program_publishes_while_it_runs(start: Start, tmp_path: Path) -> None:
    """Once nothing is compiled any more, what was compiled is published, so that a killed server loses nothing."""
    popen = start(*RUN, "--publish-after", "0.5", str(tmp_path / "store"), *PROGRAM, "serve")
    until(lambda: bundles(tmp_path / "store") == 1)
    assert popen.poll() is None
    popen.kill()
    assert ended(popen)[0] == -signal.SIGKILL


@pytest.mark.parametrize("method", [pytest.param("spawn", marks=pytest.mark.nightly), "fork"])
def test_workers_publish(start: Start, tmp_path: Path, method: str) -> None:
    """Each child process publishes what it compiled, one that fails too; the next run hits in all of them."""
    command = (*RUN, "--min-hit-rate", "0", str(tmp_path / "store"), *PROGRAM, "workers", method)
    code, _, stderr = ended(start(*command, "3", "13"))
    assert (code, stderr.count("publish published")) == (0, 2), stderr
    assert "in 2 processes" in stderr
    code, _, stderr = ended(start(*command, "13", "3"))
    assert "hit rate: 1.000: 4 of 4 lookups hit, in 2 processes" in stderr


def test_threads_that_outlive_the_main_thread_publish(start: Start, tmp_path: Path) -> None:
    """What is compiled once the main thread has ended is published, counts for the hit rate, and is hit."""
    command = (*RUN, "--min-hit-rate", "0", str(tmp_path), *PROGRAM, "compile_after_the_main_thread")
    for hit in (0, 4):
        code, _, stderr = ended(start(*command))
        assert (code, f"{hit} of 4 lookups hit" in stderr) == (0, True), stderr


def test_lookups_of_a_parent_count_once(start: Start, tmp_path: Path) -> None:
    """What a forked worker inherits of its parent's counts is left out of the hit rate."""
    command = (*RUN, "--min-hit-rate", "0", str(tmp_path), *PROGRAM, "workers_of_a_parent_that_compiled", "3", "5")
    code, _, stderr = ended(start(*command))
    assert (code, "of 6 lookups hit, in 3 processes" in stderr) == (0, True), stderr


@pytest.mark.parametrize("name", [pytest.param("after_reset", marks=pytest.mark.nightly), "probe_first"])
def test_ways_of_the_program_change_nothing(start: Start, tmp_path: Path, name: str) -> None:
    """A program that resets the compiler, or looks for it before it imports it, starts warm all the same."""
    code, _, stderr = ended(start(*RUN, str(tmp_path / "store"), *PROGRAM, name))
    assert code == 0, stderr
    assert bundles(tmp_path / "store") == 1


@pytest.mark.parametrize("way", ["ahead of time", pytest.param("standing alone", marks=pytest.mark.nightly)])
def test_compilation_without_a_frame_is_noticed(start: Start, tmp_path: Path, way: str) -> None:
    """What runs none of Dynamo's callbacks publishes its compiled files, and nothing that no process would find."""
    store = tmp_path / "store"
    for _ in range(2):
        code, _, stderr = ended(start(*RUN, str(store), *PROGRAM, "compile_without_a_frame", way))
        if "has no attribute 'aot_compile'" in stderr:
            pytest.skip("this torch does not compile ahead of time")
        assert code == 0, stderr
    assert "warm loaded" in stderr
    assert "publish unchanged" in stderr
    assert "compiled anew: 0 C++" in stderr


def test_program_without_torch_sees_nothing(start: Start, tmp_path: Path) -> None:
    """A process that never imports PyTorch has not imported megacache, and finds its path and signals unchanged."""
    code, _, stderr = ended(start(*RUN, str(tmp_path / "store"), *PROGRAM, "look", str(tmp_path / "seen")))
    assert (code, stderr) == (0, "")
    assert (tmp_path / "seen").read_text() == "[] [] True"


def test_hidden_sitecustomize_runs(start: Start, tmp_path: Path) -> None:
    """The module of that name which a host has of its own is run as ever."""
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "sitecustomize.py").write_text("import os; os.environ['SEEN'] = __file__")
    code, stdout, _ = ended(
        start(
            *RUN,
            str(tmp_path / "store"),
            sys.executable,
            "-c",
            "import os, sys; print(os.environ['SEEN'], sys.modules['sitecustomize'].__file__)",
            PYTHONPATH=os.pathsep.join(filter(None, [str(tmp_path / "own"), os.environ.get("PYTHONPATH", "")])),
        )
    )
    assert (code, stdout.split()) == (0, [str(tmp_path / "own" / "sitecustomize.py")] * 2)


def test_python_that_is_too_old_is_left_alone(start: Start, tmp_path: Path) -> None:
    """Every Python 3 can read what lies on its path, and one that is too old runs only the module that it hides."""
    source = Path(next(iter(site.__path__))) / "sitecustomize.py"
    ast.parse(source.read_text(), feature_version=(3, 4))
    (tmp_path / "sitecustomize.py").write_text("print('own')")
    code = (
        "import sys; sys.version_info = (3, 7, 0); import sitecustomize; print('megacache_on_compile' in sys.modules)"
    )
    done = ended(
        start(sys.executable, "-S", "-c", code, PYTHONPATH=os.pathsep.join([str(source.parent), str(tmp_path)]))
    )
    assert done == (0, "own\nFalse\n", "")


@pytest.mark.parametrize(
    "command",
    [
        (sys.executable, "-m", "megacache.autostart", "-m", "tests.kit.program", "once"),
        (sys.executable, "-c", "import megacache.autostart; from tests.kit import program; program.once()"),
    ],
    ids=["module", "import"],
)
def test_variable_is_enough(start: Start, tmp_path: Path, command: tuple[str, ...]) -> None:
    """With `MEGACACHE_URL` a program publishes without the wrapper, and says nothing unless asked."""
    code, stdout, stderr = ended(start(*command, MEGACACHE_URL=str(tmp_path / "store")), "input")
    assert (code, stdout.split()[1:]) == (0, ["input"])
    assert [line for line in stderr.splitlines() if " torch/" not in line] == []  # torch's own log may find no CUDA
    assert bundles(tmp_path / "store") == 1


@pytest.mark.parametrize(
    ("given", "flags"),
    [
        ("-m megacache.autostart", []),
        ("-u -m megacache.autostart", ["-u"]),
        ("-X dev -W ignore -m megacache.autostart", ["-X", "dev", "-W", "ignore"]),
        ("-bu -Om megacache.autostart", ["-bu", "-O"]),
        ("-u -mmegacache.autostart", ["-u"]),
    ],
)
def test_flags_of_the_interpreter_stay(start: Start, given: str, flags: list[str]) -> None:
    """The Python that runs the program gets the options that were given to the one before."""
    code = "import sys; print(sys.orig_argv[1:])"
    expected = [*flags, "-c", code]
    assert ended(start(sys.executable, *given.split(), "-c", code)) == (0, f"{expected}\n", "")


@pytest.mark.parametrize(
    ("flags", "log", "told"),
    [
        ((), "verbose", "SettingsError: MEGACACHE_LOG='verbose' is not a level"),
        (("-E",), "info", "with -I, -E or -S"),
        (("-S",), "info", "with -I, -E or -S"),
    ],
)
def test_program_that_cannot_start_warm_is_told(start: Start, flags: tuple[str, ...], log: str, told: str) -> None:
    """A wrong setting, and options that keep megacache out, are told in one line, and the program runs."""
    command = (sys.executable, *flags, "-m", "megacache.autostart", "-c", "print('ran')")
    code, stdout, stderr = ended(start(*command, MEGACACHE_LOG=log, PYTHONPATH=os.pathsep.join(sys.path)))
    assert (code, stdout, stderr.count("\n")) == (0, "ran\n", 1)
    assert f"this program starts cold: {told}" in stderr


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("st", "{}/st"),
        ("./st/", "{}/st"),
        ("file://./st", "file://{}/st"),
        ("/st", "/st"),
        ("s3://bucket/st", "s3://bucket/st"),
        ("simplecache::s3://bucket/st", "simplecache::s3://bucket/st"),
    ],
)
@pytest.mark.parametrize("by", ["run", "sidecar", "autostart"])
def test_relative_url_lasts(start: Start, by: str, url: str, expected: str) -> None:
    """A program that changes its folder, and what it starts, use the cache that was meant where it was started."""
    program = ("-c", "import os; print(os.environ['MEGACACHE_URL'])")
    command = {
        "run": (*RUN, url, sys.executable),
        "sidecar": (*SIDECAR, "--ready-url", "http://127.0.0.1:9", url, sys.executable),
        "autostart": (sys.executable, "-m", "megacache.autostart"),
    }
    code, stdout, stderr = ended(start(*command[by], *program, MEGACACHE_URL=url))
    assert (code, stdout) == (0, expected.format(REPOSITORY) + "\n"), stderr


def test_terminal_interrupts_once() -> None:
    """A program below a terminal gets one interrupt for one key, also with its input from elsewhere."""
    terminal, end = os.openpty()
    adopt = (
        f"import fcntl, os, sys, termios; fcntl.ioctl({end}, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
    )
    popen = subprocess.Popen(
        [sys.executable, "-c", adopt, *RUN, "--min-hit-rate", "0", "URL", *PROGRAM, "count_interrupts"],
        cwd=REPOSITORY,
        start_new_session=True,
        pass_fds=[end],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert popen.stdout is not None
    assert popen.stdout.readline() == "ready\n"
    os.write(terminal, b"\x03")
    assert popen.communicate(timeout=SECONDS)[0] == "1\n"
    os.close(terminal)
    os.close(end)


def test_store_that_is_down_costs_nothing_but_warmth(start: Start) -> None:
    """With no server at the other end the program runs, ends well, and is told why it started cold."""
    url = "s3://bucket/v1"
    endpoint = f"http://127.0.0.1:{free_port()}"
    code, stdout, stderr = ended(
        start(
            *RUN,
            "--exit-timeout",
            "2",
            url,
            *PROGRAM,
            "once",
            AWS_ENDPOINT_URL=endpoint,
            AWS_ACCESS_KEY_ID="key",
            AWS_SECRET_ACCESS_KEY="secret",
        ),
        "input",
    )
    assert (code, stdout.split()[1:]) == (0, ["input"]), stderr
    assert "warm unavailable" in stderr


def test_store_that_comes_back_is_published_to(start: Start, tmp_path: Path) -> None:
    """A publication that failed is tried again."""
    store = tmp_path / "store"
    store.write_text("a file stands where the store should be")
    popen = start(*RUN, "--publish-after", "0.5", str(store), *PROGRAM, "serve")
    assert popen.stderr is not None
    while "publish unavailable" not in popen.stderr.readline():
        assert popen.poll() is None
    store.unlink()
    until(lambda: bundles(store) == 1)


@pytest.mark.parametrize(
    ("quiet", "pauses"),
    [(30.0, [30, 60, 120, 240, 480, 600, 600]), (0.0, [0, 2, 4, 8, 16, 32, 64]), (900.0, [900] * 7)],
)
def test_store_that_stays_down_is_asked_ever_more_rarely(quiet: float, pauses: list[float]) -> None:
    """Each failure doubles the pause, up to ten minutes, and never makes it shorter than the quiet asked for."""
    assert [pause(quiet, failures) for failures in range(7)] == pauses
    assert pause(quiet, 100_000) == max(quiet, 600)


def test_url_that_is_misspelt_starts_cold(start: Start, tmp_path: Path) -> None:
    """A URL that fsspec would take for a folder of the working directory is told, and nothing is written there."""
    code, _, stderr = ended(
        start(sys.executable, "-m", "megacache.autostart", "-c", "print()", MEGACACHE_URL=f"file://localhost{tmp_path}")
    )
    assert code == 0
    assert (
        f"starts cold: SettingsError: file://localhost{tmp_path} names a host; did you mean file://{tmp_path}?"
        in stderr
    )


def test_wrong_variable_starts_cold(start: Start, tmp_path: Path) -> None:
    """A setting that means nothing is told once, and the program runs."""
    code, _, stderr = ended(
        start(
            sys.executable,
            "-c",
            "import megacache.autostart; from tests.kit import program; program.once()",
            MEGACACHE_URL=str(tmp_path / "store"),
            MEGACACHE_PUBLISH_AFTER="soon",
        )
    )
    assert code == 0
    assert "this process starts cold: SettingsError: MEGACACHE_PUBLISH_AFTER='soon' is not a number" in stderr


def test_read_only_publishes_nothing(start: Start, tmp_path: Path) -> None:
    """With --read-only a program is warmed, and leaves the store as it is."""
    code, _, stderr = ended(start(*RUN, "--read-only", str(tmp_path / "store"), *PROGRAM, "once"))
    assert (code, "publish read_only" in stderr) == (0, True), stderr
    assert bundles(tmp_path / "store") == 0


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("URL", "--", "no-such-program"), 127, "the program no-such-program was not found; check its name"),
        (("URL",), 2, "Missing argument"),
        (("URL", "--"), 2, "Missing argument"),
        (("URL", "--", "--"), 2, "there is no program after `--`"),
        (("URL", "--quiet", "--", "true"), 0, ""),
        (("URL", "--quiet", "true"), 2, "options go before the URL: --quiet"),
        (("URL", sys.executable, "-c", "import sys; sys.exit(len(sys.argv))", "--", "-x"), 3, ""),
        (("--exit-timeout", "2", "URL", "true", "--", "--flag"), 0, ""),
        (("URL", "--", "/"), 126, "is not an executable file"),
        (("URL", "--", "./README.md"), 126, "is not an executable file"),
        (("--warm-timeout", "inf", "URL", "--", "true"), 2, "inf is not a finite number"),
        (("--publish-after", "nan", "URL", "--", "true"), 2, "nan is not a finite number"),
        (("--min-hit-rate", "7", "URL", "--", "true"), 2, "is not in the range"),
        (("URL", "--", "false"), 1, ""),
        (("URL", "--", "true"), 0, ""),
        (("--min-hit-rate", "0", "URL", "--", "true"), 5, "no graph was looked up"),
        (("--min-hit-rate", "0", "URL", "--", "false"), 1, ""),
    ],
    ids=str,
)
def test_commands_end_as_shells_do(start: Start, arguments: tuple[str, ...], code: int, told: str) -> None:
    """What cannot be started, or is not Python, ends with the code that a shell would give."""
    done, _, stderr = ended(start(*RUN, *arguments))
    assert (done, told in stderr) == (code, True), stderr


@pytest.mark.parametrize("to", ["&-", "/dev/full"])
def test_people_who_cannot_be_told_change_nothing(start: Start, to: str) -> None:
    """With a stderr that is closed, or full, commands end as ever."""
    bar = "from megacache._cli.output import progress_bar, say; say('x'); progress_bar('x').__enter__(); print('done')"
    assert ended(start("sh", "-c", f'"$@" 2>{to}', "sh", *RUN, "--min-hit-rate", "0", "URL", "true"))[0] == 5
    assert ended(start("sh", "-c", f'"$@" 2>{to}', "sh", sys.executable, "-c", bar))[:2] == (0, "done\n")


def test_file_that_is_not_a_program_is_reported(start: Start, tmp_path: Path) -> None:
    """A file with the mode of a program that the system cannot start ends with 126."""
    program = tmp_path / "program"
    program.write_bytes(b"\x7fELF, not really")
    program.chmod(0o755)
    done, _, stderr = ended(start(*RUN, "URL", "--", str(program)))
    assert (done, "cannot be started" in stderr) == (126, True)


def test_sidecar_publishes_when_the_server_is_ready(start: Start, tmp_path: Path) -> None:
    """Once the server answers, what it compiled is published, while it runs; it dies of the signal meant for it."""
    port = str(free_port())
    health = ("--ready-url", f"http://127.0.0.1:{port}/health")
    popen = start(*SIDECAR, *health, str(tmp_path / "store"), "--", *PROGRAM, "serve_http", port, "yes")
    until(lambda: bundles(tmp_path / "store") == 1)
    assert popen.poll() is None
    popen.send_signal(signal.SIGTERM)
    code, _, stderr = ended(popen)
    assert (code, "ready after" in stderr) == (-signal.SIGTERM, True), stderr


def test_sidecar_publishes_the_folder_of_an_engine(start: Start, tmp_path: Path) -> None:
    """A server that keeps its compiled code as vLLM does publishes it when it is ready, and finds it on a new host."""
    told = []
    for host in ("first", "second"):
        port = str(free_port())
        health = ("--ready-url", f"http://127.0.0.1:{port}/health")
        command = (*SIDECAR, *health, str(tmp_path / "store"), "--", *PROGRAM, "serve_http", port, "yes", "vllm")
        popen = start(*command, VLLM_CACHE_ROOT=str(tmp_path / host))
        assert popen.stdout is not None
        told.append(popen.stdout.readline().strip())
        until(lambda: holds_root(tmp_path / "store", "vllm"))
        popen.send_signal(signal.SIGTERM)
        assert ended(popen)[0] == -signal.SIGTERM
    assert told == ["compiled", "loaded"]


def test_server_that_is_never_ready_publishes_at_its_end(start: Start, tmp_path: Path) -> None:
    """Without readiness nothing is published while the server runs; it is left running, and publishes as it ends."""
    port = str(free_port())
    options = ("--ready-url", f"http://127.0.0.1:{port}/health", "--ready-timeout", "0.1")
    command = (*SIDECAR, *options, str(tmp_path / "store"), *PROGRAM, "serve_http", port, "no")
    popen = start(*command, MEGACACHE_PUBLISH_AFTER="0.1")
    assert popen.stdout is not None
    popen.stdout.readline()
    time.sleep(1)
    assert bundles(tmp_path / "store") == 0
    popen.send_signal(signal.SIGTERM)
    code, _, stderr = ended(popen)
    assert (code, "not ready within 0.1 s: publishing only at the end" in stderr) == (-signal.SIGTERM, True), stderr
    assert bundles(tmp_path / "store") == 1


def test_sidecar_says_why_the_server_is_not_ready(start: Start) -> None:
    """The last answer is in the message once the time is over."""
    health = f"http://127.0.0.1:{free_port()}/health"
    popen = start(*SIDECAR, "--ready-url", health, "--ready-timeout", "0.1", "URL", "--", "cat")
    assert popen.stderr is not None
    assert "the last answer was: [Errno 111] Connection refused" in popen.stderr.readline()
    assert ended(popen)[0] == 0


def test_sidecar_tells_no_secret(start: Start) -> None:
    """What a client makes of a password is not shown."""
    health = "http://me:s3cr3t@127.0.0.1/health"
    popen = start(*SIDECAR, "--ready-url", health, "--ready-timeout", "0.1", "URL", "--", "cat")
    assert popen.stderr is not None
    assert "the last answer was: nonnumeric port: '***@127.0.0.1'" in popen.stderr.readline()
    assert ended(popen)[0] == 0


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("URL", "--", "true"), 2, "Missing option '--ready-url'"),
        (("--ready-url", "localhost:80", "URL", "--", "true"), 2, "is not an http URL"),
        (("--ready-url", "http://[::1", "URL", "--", "true"), 2, "is not an http URL"),
        (("--ready-url", "http://127.0.0.1/größe", "URL", "--", "true"), 2, "is not an http URL"),
        (("--ready-url", "http://127.0.0.1:x/", "URL", "--", "true"), 2, "is not an http URL"),
        (
            ("--exit-timeout", "inf", "--ready-url", "http://[::1]", "URL", "--", "true"),
            2,
            "inf is not a finite number",
        ),
        (("--ready-url", "http://127.0.0.1:9", "URL", "--", "false"), 1, ""),
    ],
    ids=str,
)
def test_sidecar_ends_as_its_server_does(start: Start, arguments: tuple[str, ...], code: int, told: str) -> None:
    """Wrong usage is an error, and the exit code of the server is that of the command."""
    done, _, stderr = ended(start(*SIDECAR, *arguments))
    assert (done, told in stderr) == (code, True), stderr


def test_receipts_add_up(tmp_path: Path) -> None:
    """The hit rate is over all processes and both caches; bypassed lookups count, unknown ones do not."""
    from megacache.integrations._receipts import hit_rate

    def lookups(**counts: int) -> dict[str, Any]:
        return {"hit": 0, "missed": 0, "bypassed": 0, **counts}

    assert hit_rate(str(tmp_path)).rate is None
    (tmp_path / "1.json").write_text(json.dumps({"inductor": lookups(hit=3), "aot_autograd": lookups(missed=1)}))
    (tmp_path / "2.json").write_text(json.dumps({"inductor": lookups(bypassed=2), "aot_autograd": None}))
    found = hit_rate(str(tmp_path))
    assert (found.processes, found.hit, found.total, found.rate) == (2, 3, 6, 0.5)
