"""A program under test: it takes steps as JSON on its command line and answers each on its last line of output.

It runs real models through the real compiler. Every step is a function below; a test names it and gives its arguments.
"""

import hashlib
import itertools
import json
import logging
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import megacache
from megacache import PublishResult, Receipt, WarmResult
from tests.kit import engines, extension, models, operators

Answer = dict[str, Any]
CHANGES = frozenset({"open", "os.chmod", "os.link", "os.mkdir", "os.remove", "os.rename"})
"""What changes a disk, or comes just before."""


def answer_of(result: WarmResult | PublishResult) -> Answer:
    """Put a result into JSON's types."""
    taken: Receipt | None = getattr(result, "receipt", None)
    return {
        "status": result.status.value,
        "true": bool(result),
        "reason": result.reason,
        "warnings": list(result.warnings),
        "artifacts": dict(result.artifacts),
        "files": result.files,
        "bytes_files": result.bytes_files,
        "bytes_stored": result.bytes_stored,
        "bytes_raw": result.bytes_raw,
        "seconds": dict(result.seconds),
        "error": type(result.error).__name__ if result.error else None,
        "bundle": next(iter(result.bundles), None),
        "bundles": list(result.bundles),
        "info": counts(getattr(result, "info", None)),
        "receipt": taken.to_json() if taken else None,
        "sources": dict(getattr(result, "sources", {})),
    }


def counts(info: Any) -> dict[str, int]:
    """Count what torch says it loaded."""
    return {kind: len(keys) for kind, keys in info.artifacts.items()} if info else {}


def warm(**options: Any) -> Answer:
    """Warm, and answer with the result or the exception."""
    try:
        return answer_of(megacache.warm(**options))
    except megacache.MegacacheError as error:
        return {"raised": type(error).__name__, "message": str(error)}


def prefetch(**options: Any) -> Answer:
    """Begin a warm start, and go on."""
    _begun.append(megacache.prefetch(**options))
    return {}


_begun: list[megacache.Prefetch] = []


def result() -> Answer:
    """Answer with the result of the warm start that was begun last."""
    return answer_of(_begun[-1].result())


def result_in_fork() -> Answer:
    """Do so in a forked child."""
    return _in_fork(result)


def run_in_fork(model: str) -> Answer:
    """Compile and run a model in a forked child."""
    return _in_fork(lambda: run(model))


def publish(**options: Any) -> Answer:
    """Publish, in the background if `wait` is false, and answer with the result or the exception."""
    try:
        result = megacache.publish(**options)
        return answer_of(result if isinstance(result, PublishResult) else result.result(60))
    except megacache.MegacacheError as error:
        return {"raised": type(error).__name__, "message": str(error)}


def die_at(*, folder: str, count: int) -> Answer:
    """Kill this process when it is about to change something in a folder for the nth time."""
    left, lock = itertools.count(1), threading.Lock()

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if event in CHANGES and any(str(one).startswith(folder) for one in arguments):
            with lock:
                if next(left) == count:
                    os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    return {}


def publish_and_go_on(**options: Any) -> Answer:
    """Publish in the background and do not ask what became of it."""
    future = megacache.publish(wait=False, **options)
    return {"running": not future.done()}


def synchronize(*, model: str, fails: bool, **options: Any) -> Answer:
    """Run a model between warm start and publication, in a block that may fail."""
    sync: megacache.Synchronized | None = None
    caught = ""
    try:
        with megacache.synchronized(**options) as sync:
            ran = run(model)
            if fails:
                msg = "the block failed"
                raise RuntimeError(msg)  # noqa: TRY301 - the exception has to leave the block
    except RuntimeError as error:
        caught = str(error)
    assert sync is not None
    published = answer_of(sync.published) if sync.published else None
    taken = sync.receipt.to_json() if sync.receipt else None
    return {"warmed": answer_of(sync.warmed), "ran": ran, "published": published, "caught": caught, "receipt": taken}


def publish_in_fork(**options: Any) -> Answer:
    """Publish in a forked child, and answer with its result."""
    return _in_fork(lambda: publish(**options))


def warm_in_forks(*, count: int, model: str, **options: Any) -> Answer:
    """Warm in forked children at once, each of which compiles and publishes what it does not find."""

    def work() -> Answer:
        warmed = warm(**options)
        if warmed["status"] == "miss":
            run(model)
            publish(url=options["url"], storage_options=options["storage_options"])
        return {"status": warmed["status"], "reason": warmed["reason"]}

    with ThreadPoolExecutor(count) as pool:
        return {"children": list(pool.map(lambda _: _in_fork(work), range(count)))}


def receipt_in_fork() -> Answer:
    """Take a receipt in a forked child."""
    return _in_fork(receipt)


def _in_fork(do: Callable[[], Answer]) -> Answer:
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.write(writer, json.dumps(do()).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        answer: Answer = json.load(pipe)
    os.waitpid(child, 0)
    return answer


def explain(**options: Any) -> Answer:
    """Explain, and answer with the explanation and its text, or the exception."""
    try:
        explained = megacache.explain(**options)
    except megacache.MegacacheError as error:
        return {"raised": type(error).__name__, "message": str(error)}
    return {**explained.to_json(), "text": str(explained)}


def run(model: str, **options: Any) -> Answer:
    """Compile and run a model; answer with a digest of its outputs and what torch's caches counted meanwhile."""
    before = lookups()
    return _described(_model(model)(**options), before)


def _model(name: str) -> Callable[..., list[Any]]:
    found: Callable[..., list[Any]] = getattr(models if hasattr(models, name) else operators, name)
    return found


def define(**options: bool) -> Answer:
    """Define the custom operators of `tests.kit.operators`."""
    operators.define(**options)
    return {}


def migrated(program: str, **options: Any) -> Answer:
    """Run a program of `tests.kit.migrated`; answer as `run` does, and with what that library told it."""
    from tests.kit import migrated

    before = lookups()
    outputs, told = getattr(migrated, program)(**options)
    return {**_described(outputs, before), **told}


def b10(name: str, *, variables: dict[str, str] | None = None) -> Answer:
    """Call a function of `megacache.compat.b10`, with variables of its own."""
    from megacache.compat import b10

    kept = dict(os.environ)
    os.environ.update(variables or {})
    try:
        answer = getattr(b10, name)()
    finally:
        for variable in variables or {}:
            del os.environ[variable]
        os.environ.update(kept)
    return {"answer": answer.name if isinstance(answer, b10.OperationStatus) else answer}


def _described(outputs: list[Any], before: dict[str, int]) -> Answer:
    digest = hashlib.sha256()
    for tensor in outputs:
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return {
        "digest": digest.hexdigest(),
        "sum": [float(tensor.double().sum()) for tensor in outputs],
        **{name: count - before[name] for name, count in lookups().items()},
    }


def lookups() -> dict[str, int]:
    """Tell what torch's caches have counted so far."""
    from torch._dynamo.utils import counters

    fx, aot = counters["inductor"], counters["aot_autograd"]
    return {
        "fx_hit": fx["fxgraph_cache_hit"],
        "fx_miss": fx["fxgraph_cache_miss"],
        "aot_hit": aot["autograd_cache_hit"],
        "aot_miss": aot["autograd_cache_miss"],
    }


def clear_counters() -> Answer:
    """Clear torch's counters, as a program may."""
    from torch._dynamo.utils import counters

    counters.clear()
    return {}


def eager(model: str, **options: Any) -> Answer:
    """Run a model without compiling it."""
    outputs = _model(model)(compiled=False, **options)
    return {"sum": [float(tensor.double().sum()) for tensor in outputs]}


def receipt() -> Answer:
    """Answer with the receipt in JSON's types and as text."""
    taken = megacache.receipt()
    return {**taken.to_json(), "text": str(taken)}


def start_afresh(folder: str = "") -> Answer:
    """Forget what is compiled, and turn to another cache folder if one is given."""
    import torch

    torch._dynamo.reset()
    if folder:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder
    return {}


def save_plainly(path: str) -> Answer:
    """Save with torch's own function."""
    import torch

    saved = torch.compiler.save_cache_artifacts()
    assert saved is not None
    Path(path).write_bytes(saved[0])
    return {}


def load_plainly(path: str) -> Answer:
    """Load with torch's own function."""
    import torch
    import torch._dynamo

    info = torch.compiler.load_cache_artifacts(Path(path).read_bytes())
    assert info is not None
    return counts(info)


def execute(code: str) -> Answer:
    """Run a program that is given as text."""
    exec(code, {"__name__": "__main__"})
    return {}


def configure(name: str, *, value: Any) -> Answer:
    """Set an attribute of torch, by its dotted name."""
    import torch
    import torch._dynamo
    import torch._inductor.config

    *path, last = name.split(".")
    target: Any = torch
    for part in path:
        target = getattr(target, part)
    setattr(target, last, value)
    return {}


def call(name: str, **options: Any) -> Answer:
    """Call a function of torch, by its dotted name, with one value."""
    import torch

    function: Any = torch
    for part in name.split("."):
        function = getattr(function, part)
    value = options["value"]
    function(getattr(torch, value) if name == "set_default_dtype" else value)
    return {}


def meet(path: str, others: int) -> Answer:
    """Wait until as many processes have come to this point, so that they go on at the same moment."""
    folder = Path(path)
    folder.mkdir(exist_ok=True)
    (folder / str(os.getpid())).touch()
    deadline = time.monotonic() + 300
    while len(list(folder.iterdir())) < others:
        assert time.monotonic() < deadline, "the others did not come"
        time.sleep(0.005)
    return {}


def kill() -> Answer:
    """Kill this process, as one is that has no memory left."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def remove(pattern: str) -> Answer:
    """Remove from torch's cache folder what matches, as a cleaner of temporary files may."""
    found = list(Path(os.environ["TORCHINDUCTOR_CACHE_DIR"]).glob(pattern))
    for path in found:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    return {"removed": len(found)}


def run_apart(model: str) -> Answer:
    """Compile and run a model in a cache folder that torch makes for it, and removes."""
    from torch._inductor.utils import fresh_cache

    with fresh_cache():
        return run(model)


def artifacts_on_disk() -> Answer:
    """Count the files in torch's cache folder that came out of artifacts."""
    folder = Path(os.environ["TORCHINDUCTOR_CACHE_DIR"])
    return {name: sum(p.is_file() for p in (folder / name).rglob("*")) for name in ("fxgraph", "aotautograd")}


def watch_processes() -> Answer:
    """Note the command of each process that is started from now on."""
    sys.addaudithook(lambda event, details: _started.append(details[1]) if event == "subprocess.Popen" else None)
    return {}


_started: list[Any] = []


def started_processes() -> Answer:
    """Answer with their commands."""
    return {"commands": [command if isinstance(command, str) else list(map(str, command)) for command in _started]}


def used_files() -> Answer:
    """Answer with the paths of the compiled files that this process uses."""
    from megacache import _compiler

    return {"paths": [located.path for located in _compiler.used_files((), _compiler.file_roots(None))]}


def snapshot() -> Answer:
    """Answer with all that a library could change behind a program's back."""
    state: Answer = {
        "environment": dict(os.environ),
        "loggers": {
            name: [logger.level, logger.propagate, logger.disabled, repr(logger.handlers), repr(logger.filters)]
            for name, logger in logging.root.manager.loggerDict.items()
            if isinstance(logger, logging.Logger) and name != "torch.__trace"  # drops its handler at the first event
        },
        "root": [logging.root.level, len(logging.root.handlers)],
    }
    for name in ("torch._inductor.config", "torch._dynamo.config", "torch._functorch.config"):
        if name in sys.modules:
            state[name] = {key: repr(value) for key, value in sys.modules[name].get_config_copy().items()}
    return state


def import_compiler() -> Answer:
    """Import the compiler, as the first compilation would."""
    import torch
    import torch._dynamo
    import torch._inductor.compile_fx

    return {"version": torch.__version__}


def environment() -> Answer:
    """Answer with the facts."""
    found = megacache.environment()
    return {"facts": dict(found.facts), "fingerprint": found.fingerprint, "device": found.device}


def gpu() -> Answer:
    """Answer with the name of the GPU; empty if there is none."""
    import torch

    return {"name": torch.cuda.get_device_name() if torch.cuda.is_available() else ""}


STEPS: dict[str, Callable[..., Answer]] = {
    step.__name__: step
    for step in (
        warm,
        prefetch,
        result,
        result_in_fork,
        run_in_fork,
        publish,
        die_at,
        publish_and_go_on,
        explain,
        call,
        publish_in_fork,
        warm_in_forks,
        synchronize,
        run,
        migrated,
        b10,
        define,
        eager,
        receipt,
        receipt_in_fork,
        clear_counters,
        start_afresh,
        save_plainly,
        load_plainly,
        execute,
        configure,
        meet,
        kill,
        remove,
        run_apart,
        artifacts_on_disk,
        watch_processes,
        started_processes,
        used_files,
        snapshot,
        import_compiler,
        environment,
        gpu,
        engines.vllm_like,
        engines.vllm_itself,
        extension.inline,
        extension.outside,
    )
}


def main() -> None:
    """Do the steps in order."""
    answers = [STEPS[name](**options) for name, options in json.loads(sys.argv[1])]
    sys.stdout.write(f"{json.dumps(answers)}\n")


if __name__ == "__main__":
    main()
