"""Read this process's environment, and what compiled files depend on beside it, from torch; compile nothing."""

import ctypes
import logging
import os
import platform
import re
import sys
import sysconfig
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from megacache._bundle import FORMAT, NO_COMPILER, Digest, Environment
from megacache._compiler.door import door
from megacache._compiler.processors import cpu_flags, cpu_target
from megacache._compiler.variables import RECORDED
from megacache._runtime import Deadline, call
from megacache._settings import plain_variables, requested_cpu_capability
from megacache._store import without_secrets
from megacache.errors import CompilerError, DeadlineError

if TYPE_CHECKING:
    import torch

# Private, and in `torch.cpu` from 2.11 to 2.15; what a torch lacks counts as unknown.
_X86_PROBES = (
    ("avx2", "_is_avx2_supported"),
    ("avx512", "_is_avx512_supported"),
    ("avx512_bf16", "_is_avx512_bf16_supported"),
    ("avx512_vnni", "_is_vnni_supported"),
    ("amx_tile", "_is_amx_tile_supported"),
    ("amx_fp16", "_is_amx_fp16_supported"),
)
_ARM_CAPABILITIES = ("bf16", "sve", "sve2", "sve_max_length")
_COMPILER_SECONDS = 10.0
"""What the C++ compiler has to tell its version: one that takes longer lies on a disk that hangs."""
_log = logging.getLogger("megacache")
_Answer = TypeVar("_Answer")


def toolchain(deadline: Deadline | None = None) -> Mapping[str, str]:
    """Collect the facts that guard compiled files; folders only as digests.

    Raises `CompilerError` if the C++ compiler does not answer, for which half of the time is left.
    """
    with door("describing its compiler"):
        # The thread that asks the C++ compiler needs it: its seconds are not for an import.
        import torch._inductor.codecache  # noqa: F401

        return _asked(_toolchain, deadline)


def _toolchain() -> Mapping[str, str]:
    import torch

    compiler = compiler_version()
    return {
        "compiler": compiler,
        "compiler_name": _without_folders(compiler_name()),
        "cpu_flags": cpu_flags(),
        "cpu_target": _cpu_target(compiler),
        "libc": " ".join(platform.libc_ver()),
        "python_location": _digest(sysconfig.get_path("include"), str(sysconfig.get_config_var("LIBDIR"))),
        "torch_location": _digest(*torch.__path__),
    }


def _asked(question: Callable[[], _Answer], deadline: Deadline | None) -> _Answer:
    """Ask the C++ compiler, which is a program of its own, and may hang as a disk may."""
    whole = deadline or Deadline.after(2 * _COMPILER_SECONDS)
    limit = whole.sooner(min(_COMPILER_SECONDS, whole.remaining() / 2))
    try:
        return call(question, deadline=limit, doing="asking the C++ compiler for its version")
    except DeadlineError as error:
        raise CompilerError(
            "the C++ compiler does not answer", hint="run it by hand with --version to see why"
        ) from error


def compiler_version() -> str:
    """Tell name and version of the C++ compiler, such as `gcc version 14.2.0 (Debian 14.2.0-19)`."""
    from torch._inductor.cpp_builder import get_compiler_version_info, get_cpp_compiler

    try:
        text = get_compiler_version_info(get_cpp_compiler())
    except Exception:  # noqa: BLE001 - a host without a compiler is a fact, too
        text = ""
    if not text:
        return NO_COMPILER
    match = re.search(r"(?:gcc|clang) version [\w.]+(?: \([^()/]*\))?", text)
    return match[0] if match else f"unknown {_digest(text)}"


def compiler_name() -> str:
    """Tell what the compiler is called as; on a host without one, what it would be called as."""
    from torch._inductor import config
    from torch._inductor.cpp_builder import get_cpp_compiler

    try:
        return str(get_cpp_compiler())
    except Exception:  # noqa: BLE001 - as above
        names = config.cpp.cxx if isinstance(config.cpp.cxx, list | tuple) else [config.cpp.cxx]
        return str([name for name in names if name][-1])


def _cpu_target(version: str) -> str:
    if version == NO_COMPILER:
        return cpu_target(None)
    # Others tell of themselves in other words.
    return cpu_target(compiler_name()) if version.startswith("gcc ") else ""


def _without_folders(name: str) -> str:
    # A folder, which may have the name of a user, must not be published.
    return _digest(name) if os.sep in name else name


def _digest(*texts: str) -> str:
    return Digest.of("\0".join(texts).encode(errors="surrogateescape")).hex[:16]


def current_environment(deadline: Deadline | None = None) -> Environment:
    """Collect the facts that enter the fingerprint and those that are recorded beside them.

    The current device is the one that counts, as it is for Inductor's own keys; on a GPU this initialises it. A fact
    that is only recorded costs nothing when it cannot be read: it is empty, and named in `Environment.unread`.

    Raises:
        CompilerError: A fact of the fingerprint could not be read.
    """
    with door("describing its environment"):
        import torch
        import torch._dynamo

        # Unless it looks, a build for CUDA names CUDA where no GPU is.
        device = torch.accelerator.current_accelerator(check_available=True)
        facts = {
            "format": str(FORMAT[0]),
            **_device_facts(device),
            **_software_facts(),
            "os": platform.system(),
            "machine": platform.machine(),
            # PyTorch's own keys leave this out: what was compiled with AVX512 would hit under AVX2, with wrong numbers.
            "cpu_capability": torch.backends.cpu.get_cpu_capability(),
            "cpu_extensions": _cpu_extensions(),
        }
        recorded, unread = _recorded(device, deadline)
        return Environment(facts=facts, recorded=recorded, unread=unread)


def _device_facts(device: "torch.device | None") -> Mapping[str, str]:
    import torch

    if device is None:
        return {"device_type": "cpu", "device_name": platform.machine(), "device_capability": ""}
    if device.type != "cuda":
        module: Any = torch.get_device_module(device)
        name = module.get_device_name() if hasattr(module, "get_device_name") else device.type
        return {"device_type": device.type, "device_name": name, "device_capability": ""}
    properties = torch.cuda.get_device_properties(torch.cuda.current_device())
    if torch.version.hip:  # a device of ROCm is of type cuda to torch
        return {"device_type": "rocm", "device_name": properties.name, "device_capability": properties.gcnArchName}
    capability = f"{properties.major}.{properties.minor}"
    return {"device_type": "cuda", "device_name": properties.name, "device_capability": capability}


def _software_facts() -> Mapping[str, str]:
    import torch
    from torch._inductor.codecache import torch_key

    return {
        "torch_version": torch.__version__,
        "torch_key": torch_key().hex(),
        "toolkit": torch.version.cuda or torch.version.hip or "",
        "triton": _triton_key(),
        # `SOABI` tells builds of one version apart, such as the one without the GIL.
        "python": f"{platform.python_implementation()} {sys.version_info.major}.{sys.version_info.minor} "
        f"{sysconfig.get_config_var('SOABI') or ''}".strip(),
    }


def _triton_key() -> str:
    from torch.utils._triton import has_triton_package

    if not has_triton_package():
        return ""
    try:
        from torch._inductor.runtime.triton_compat import triton_key
    except ImportError:  # torch 2.8
        from triton.compiler.compiler import triton_key

    return Digest.of(str(triton_key()).encode()).hex[:16]


def _cpu_extensions() -> str:
    """Name what `torch._inductor.cpu_vec_isa.pick_vec_isa` chooses from, without the compilations of its trials."""
    import torch

    names = [_probed(name, getattr(torch.cpu, probe, None)) for name, probe in _X86_PROBES]
    if platform.machine() in {"aarch64", "arm64"} and hasattr(torch.cpu, "get_capabilities"):
        capabilities = torch.cpu.get_capabilities()
        names += [f"{name}={capabilities[name]}" for name in _ARM_CAPABILITIES if capabilities.get(name)]
    requested = requested_cpu_capability()
    return " ".join(filter(None, [*names, f"requested={requested}" if requested else ""]))


def _probed(name: str, probe: Callable[[], bool] | None) -> str:
    if probe is None:
        return f"{name}=unknown"
    return name if probe() else ""


def _recorded(device: "torch.device | None", deadline: Deadline | None) -> tuple[Mapping[str, str], Mapping[str, str]]:
    """Give the recorded facts, and the errors of those that could not be read."""
    readers: dict[str, Callable[[], str]] = {
        "threads": _threads,
        "driver": lambda: _driver_version(device),
        "compiler": lambda: _asked(compiler_version, deadline),
        "cpu_flags": cpu_flags,
        "float32_matmul_precision": _matmul_precision,
        "default_dtype": _default_dtype,
        "inductor_config": _changed_config,
    }
    recorded, unread = dict.fromkeys(readers, ""), {}
    # Each is read by itself: the start may not depend on what is only recorded.
    for name, read in readers.items():
        try:
            recorded[name] = read()
        except Exception as error:  # noqa: BLE001 - as said above
            unread[name] = f"{type(error).__name__}: {without_secrets(str(error))[:200]}"
            _log.debug("fact not read: name=%s error=%s", name, unread[name])
    return {**recorded, **plain_variables(RECORDED)}, unread


def _threads() -> str:
    import torch

    return str(torch.get_num_threads())


def _matmul_precision() -> str:
    import torch

    return torch.get_float32_matmul_precision()


def _default_dtype() -> str:
    import torch

    return str(torch.get_default_dtype())


def _changed_config() -> str:
    import torch._inductor.config

    config: Any = torch._inductor.config
    return " ".join(sorted(name for name in config.get_config_copy() if not config._is_default(name)))


def _driver_version(device: "torch.device | None") -> str:
    """Give the newest CUDA version that the driver supports, such as `13.0`; empty without CUDA."""
    import torch

    if device is None or device.type != "cuda" or torch.version.hip:
        return ""
    # Builds of torch for CUDA lack the private function that would tell: the driver itself is asked.
    version = ctypes.c_int()
    status = ctypes.CDLL("libcuda.so.1").cuDriverGetVersion(ctypes.byref(version))
    if status != 0:
        msg = f"cuDriverGetVersion returned {status}"
        raise OSError(msg)
    return f"{version.value // 1000}.{version.value % 1000 // 10}"
