"""Build the stand-in for CUDA: a driver, `libcuda.so.1`, and a runtime, `libcudart.so.13`, of one GPU.

A process that finds the two in place of the real ones believes in an H100. All of PyTorch's and Triton's code for
the host runs, and kernels are compiled for real, loaded and launched; but no kernel runs, so numbers mean nothing.
"""

import re
import subprocess
from collections.abc import Iterable
from pathlib import Path

DRIVER, RUNTIME = "libcuda.so.1", "libcudart.so.13"
HEADERS = Path("nvidia/cu13/include")
"""Where CUDA 13's own wheels put its headers, below site-packages."""
_TYPES = Path("triton/backends/nvidia/include")
_HERE = Path(__file__).parent
_GCC = ("gcc", "-std=gnu11", "-O2", "-fPIC")
_SHARED = ("-w", "-fno-builtin", "-shared")
_EXPORTED = "libcudart.so.13 {global: cuda*; __cuda*; local: *;};"


def build(site_packages: Path, out: Path) -> Path:
    """Build both into a folder, by the headers of a CUDA 13 build of torch and the names that it is linked with.

    Needs gcc and binutils. Every function that is not written answers "success" and does nothing.
    """
    out.mkdir(parents=True, exist_ok=True)
    include = [f"-I{folder}" for folder in (site_packages / HEADERS, site_packages / _TYPES, _HERE)]
    _build_driver(site_packages / HEADERS / "cuda.h", include, out)
    _build_runtime(site_packages, include, out)
    return out


def _build_driver(header: Path, include: list[str], out: Path) -> None:
    have = _defined(_compiled(_HERE / "cuda.c", include, out))
    names = _renamed(set(re.findall(r"CUDAAPI (cu[A-Z]\w+)", header.read_text())), include)
    # The header renames functions (cuMemAlloc is cuMemAlloc_v2): both names lead to what is written.
    aliases = {name: real for name, real in names.items() if real in have and name not in have}
    source = out / "driver.c"
    lines = [f'__asm__(".globl {name}\\n.set {name}, {real}");' for name, real in sorted(aliases.items())]
    source.write_text((_HERE / "cuda.c").read_text() + "\n".join(lines))
    stubs = _stubs({*names, *names.values()} - have - aliases.keys(), out / "driver_stubs.c")
    objects = [str(_compiled(source, include, out)), str(stubs)]
    _run(*_GCC, *_SHARED, f"-Wl,-soname,{DRIVER}", "-o", str(out / DRIVER), *objects, "-ldl", "-lpthread")


def _build_runtime(site_packages: Path, include: list[str], out: Path) -> None:
    compiled = _compiled(_HERE / "cudart.c", include, out)
    header = (site_packages / HEADERS / "cuda_runtime_api.h").read_text()
    names = {*re.findall(r"(cuda[A-Z]\w+)\(", header), *_wanted((site_packages / "torch/lib").glob("*.so"))}
    stubs = _stubs(names - _defined(compiled), out / "runtime_stubs.c")
    (out / "exported").write_text(_EXPORTED)  # under the version of symbols that torch was linked with
    linked = f"-Wl,-soname,{RUNTIME},-rpath,$ORIGIN,--version-script={out / 'exported'}"
    objects = [str(compiled), str(stubs), str(out / DRIVER)]
    _run(*_GCC, *_SHARED, linked, "-o", str(out / RUNTIME), *objects, "-ldl")


def _compiled(source: Path, include: list[str], out: Path) -> Path:
    target = out / f"{source.stem}.o"
    _run(*_GCC, *include, "-c", "-o", str(target), str(source))
    return target


def _stubs(names: Iterable[str], target: Path) -> Path:
    target.write_text("\n".join(f"int {name}(void) {{ return 0; }}" for name in sorted(names)))
    return target


def _renamed(names: set[str], include: list[str]) -> dict[str, str]:
    """Ask the preprocessor what the header makes of each name."""
    asked = "#include <cuda.h>\n" + "\n".join(f'"{name}" {name}' for name in sorted(names))
    answered = _run(*_GCC, *include, "-E", "-P", "-x", "c", "-", text=asked)
    return dict(re.findall(r'^"(cu\w+)" (\w+)$', answered, re.MULTILINE))


def _defined(compiled: Path) -> set[str]:
    return {line.split()[2] for line in _run("nm", "--defined-only", str(compiled)).splitlines()}


def _wanted(libraries: Iterable[Path]) -> set[str]:
    """Name what libraries take from the runtime."""
    listing = "".join(_run("nm", "-D", "--undefined-only", str(library)) for library in sorted(libraries))
    return set(re.findall(r"(\w+)@libcudart", listing))


def _run(*command: str, text: str | None = None) -> str:
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stderr[-2000:]}"
    return done.stdout
