"""Programs as users have them, without a line for megacache, for tests that start them by it."""

import importlib.util
import multiprocessing
import os
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any


def compile_and_run(factor: int = 2) -> str:
    """Compile a small function, run it, and give its result."""
    import torch

    def function(x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x * factor + 1)

    with torch.no_grad():
        return str(float(torch.compile(function)(torch.linspace(-1, 1, 64)).double().sum()))


def once(*arguments: str) -> None:
    """Compile, echo the arguments and the input, and end with an exit code."""
    print(compile_and_run(), *arguments, sys.stdin.read())
    sys.exit(int(os.environ.get("EXIT_CODE", "0")))


def end_by(way: str) -> None:
    """Compile, and end in one of the ways of Python."""
    compile_and_run()
    match way:
        case "exit":
            sys.exit(7)
        case "SystemExit":
            raise SystemExit(7)
        case "exception":
            raise RuntimeError(way)
        case "interrupt":
            signal.signal(signal.SIGINT, signal.default_int_handler)  # who starts this may have it ignored
            signal.raise_signal(signal.SIGINT)
        case "os._exit":
            os._exit(7)
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)


def compile_without_a_frame(way: str) -> None:
    """Compile by an entry that runs none of Dynamo's callbacks."""
    import torch
    from torch._inductor import standalone_compile
    from torch._subclasses.fake_tensor import FakeTensorMode

    def function(x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x * 3 + 1)

    argument = torch.ones(64, 64)
    with torch.no_grad():
        if way == "ahead of time":
            compiled: Any = torch.compile(function, fullgraph=True)
            print(compiled.aot_compile(((argument,), {}))(argument))
            return
        graph, mode = torch.fx.symbolic_trace(function), FakeTensorMode()
        for node in graph.graph.nodes:
            node.meta["val"] = mode.from_tensor(argument) if node.op != "output" else None
        standing_alone = standalone_compile(graph, [argument], dynamic_shapes="from_example_inputs")
        print(standing_alone(argument))


def probe_first() -> None:
    """Ask whether there is a compiler before using it, as libraries do."""
    import torch  # noqa: F401

    importlib.util.find_spec("torch._dynamo")
    print(compile_and_run())


def after_reset() -> None:
    """Compile after everything was reset, as test suites do."""
    import torch

    torch._dynamo.reset()
    print(compile_and_run())


def serve(handles_sigterm: str = "no") -> None:
    """Compile, say so, and go on until a signal ends it."""
    if handles_sigterm == "yes":
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    print(compile_and_run(), flush=True)
    time.sleep(300)


def compile_like_vllm() -> str:
    """Compile into a folder as vLLM does, or load what is there."""
    from tests.kit.engines import serve_like_vllm

    return "loaded" if serve_like_vllm() else "compiled"


def serve_http(port: str, ready: str, engine: str = "plain") -> None:
    """Serve health on a port: ready once it has compiled, or never."""

    class Health(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if done and ready == "yes" else 503)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Be silent."""

    done: list[str] = []
    server = HTTPServer(("127.0.0.1", int(port)), Health)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    done.append(compile_and_run() if engine == "plain" else compile_like_vllm())
    print(*done, flush=True)
    time.sleep(300)


def serve_late() -> None:
    """Import the compiler after somebody has taken SIGTERM over, who gives it back at the end, as servers do."""
    import torch

    told = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda *_: told.set())
    print(torch.__version__ and compile_and_run(), flush=True)
    told.wait()
    signal.signal(signal.SIGTERM, before)
    signal.raise_signal(signal.SIGTERM)


def work(factor: int) -> None:
    """Compile in a worker; one of them fails."""
    print(compile_and_run(factor), flush=True)
    if factor == 13:
        msg = "a crash"
        raise RuntimeError(msg)


def workers(method: str, *factors: str) -> None:
    """Start workers, one after another, and wait for them."""
    context = multiprocessing.get_context(method)
    for factor in factors:
        process = context.Process(target=work, args=(int(factor),))  # type: ignore[attr-defined]
        process.start()
        process.join()


def workers_of_a_parent_that_compiled(*factors: str) -> None:
    """Compile, and fork workers that compile as well."""
    compile_and_run()
    workers("fork", *factors)


def compile_after_the_main_thread() -> None:
    """Compile, and compile again in a thread that waits for the main thread to end."""

    def go_on() -> None:
        threading.main_thread().join()
        print(compile_and_run(3), flush=True)

    compile_and_run()
    threading.Thread(target=go_on).start()


def count_interrupts() -> None:
    """Say that it is ready, and count interrupts until one has not come for a second."""
    seen: list[int] = []
    signal.signal(signal.SIGINT, lambda number, _: seen.append(number))
    print("ready", flush=True)
    while not seen:
        time.sleep(0.05)
    before = time.monotonic()
    while time.monotonic() < before + 1:
        time.sleep(0.05)
    print(len(seen))


def look(target: str) -> None:
    """Write down what a program without PyTorch sees of megacache."""
    seen = sorted(name for name in sys.modules if name.partition(".")[0] in {"megacache", "torch"})
    here = [folder for folder in sys.path if "integrations" in folder]
    Path(target).write_text(f"{seen} {here} {signal.getsignal(signal.SIGTERM) is signal.SIG_DFL}")


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
