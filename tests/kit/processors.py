"""Processors that can do less than this one, as GCC sees them: a compiler that takes `native` for less."""

import shlex
import shutil
import subprocess
from pathlib import Path


def lesser_compiler(folder: Path, *missing: str) -> Path:
    """Make a folder for PATH whose `g++` is that of a host with a processor that lacks some extensions.

    It names what is left, as GCC's driver does by itself: what it says of its target is true, and so is its code.
    """
    real = shutil.which("g++")
    assert real
    told = subprocess.run(
        [real, "-march=native", "-###", "-E", "-x", "c++", "/dev/null"], capture_output=True, text=True, check=True
    ).stderr
    (line,) = (one for one in told.splitlines() if "/cc1plus " in one)
    words = [word for word in shlex.split(line) if word.startswith("-m")]
    named = [f"-mno-{word[2:]}" if word[2:] in missing else word for word in words if "=" not in word]
    assert {f"-mno-{one}" for one in missing} <= set(named), f"this processor lacks one of {missing}"
    folder.mkdir()
    script = folder / "g++"
    script.write_text(
        "#!/usr/bin/env bash\n"
        f"target=({shlex.join(['-march=x86-64', *named])})\n"
        "given=()\n"
        'for one in "$@"; do\n'
        '  if [ "$one" = -march=native ]; then given+=("${target[@]}"); else given+=("$one"); fi\n'
        "done\n"
        f'exec {shlex.quote(real)} "${{given[@]}}"\n'
    )
    script.chmod(0o755)
    return folder
