"""Code runs on an emulated processor that can do all that GCC used for another one, and GCC is asked on both."""

import platform
import shutil
import signal
import subprocess
from itertools import product
from pathlib import Path

import pytest

from megacache._bundle import file_mismatches
from megacache._bundle.environment import GUARD
from megacache._compiler.processors import cpu_target

EMULATOR = "qemu-x86_64"
MODELS = ("Nehalem", "SandyBridge", "Haswell", "Skylake-Client", "EPYC")
PROGRAM = """
#include <cstdint>
#include <cstdio>
int main(int count, char**) {
    static float a[1000], b[1000];
    uint64_t sum = count;
    for (int n = 0; n < 1000; n++) { a[n] = n * count; b[n] = 2 * n; }
    for (int m = 0; m < 10; m++)
        for (int n = 0; n < 1000; n++) a[n] = b[n] * m + a[n];
    for (int n = 0; n < 1000; n++) {
        sum += (uint64_t)a[n] << (n * count % 64);
        sum ^= (sum >> (a[n] > 9 ? 7 : 9)) + __builtin_popcountll(sum) + __builtin_ctzll(sum | 1);
        sum += __builtin_bswap64(sum) & ~(uint64_t)n;
    }
    std::printf("%llu", (unsigned long long)sum);
}
"""


def emulated(model: str, *command: str) -> list[str]:
    """Run a command as on a processor."""
    return [EMULATOR, "-cpu", model, *command]


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Compile the program on each processor for that processor."""
    if platform.machine() != "x86_64" or not all(map(shutil.which, (EMULATOR, "c++"))):
        pytest.skip(f"it takes c++ on x86-64, and {EMULATOR}, which is in the package qemu-user")
    folder = tmp_path_factory.mktemp("programs")
    (folder / "program.cpp").write_text(PROGRAM)
    for model in MODELS:
        compiling = [str(shutil.which("c++")), "-O3", "-march=native", str(folder / "program.cpp")]
        subprocess.run(emulated(model, *compiling, "-o", str(folder / model)), capture_output=True, check=True)
    return {model: folder / model for model in MODELS}


def test_code_runs_wherever_the_rule_lets_it(programs: dict[str, Path]) -> None:
    """Of all pairs, those agree whose program runs with the same result; some others die of an instruction."""
    compiler = str(shutil.which("c++"))
    target = {model: cpu_target(" ".join(emulated(model, compiler))) for model in MODELS}
    assert len(set(target.values())) > 2
    native = {subprocess.run([path], capture_output=True, check=True).stdout for path in programs.values()}
    assert len(native) == 1
    allowed, died = 0, 0
    for there, here in product(MODELS, repeat=2):
        facts = ({**dict.fromkeys(GUARD, "same"), "cpu_target": target[one], "cpu_flags": one} for one in (here, there))
        fits = not file_mismatches(*facts, roots={"inductor"}, device_type="cpu")
        done = subprocess.run(emulated(here, str(programs[there])), capture_output=True, check=False)
        if fits:
            assert (done.returncode, {done.stdout}) == (0, native), (there, here)
        allowed += fits and here != there
        died += done.returncode in {-signal.SIGILL, 128 + signal.SIGILL}
    assert allowed
    assert died
