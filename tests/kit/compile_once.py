"""A `g++` that compiles each source once: most of what the tests compile, another of them has compiled before.

It goes by the words of the command and by what the source holds, but not by the folder of either. What it cannot judge,
such as a command with several sources, the real compiler does.
"""

import shlex
import shutil
from pathlib import Path

_SCRIPT = """#!/usr/bin/env bash
real={real}
kept={kept}
words=() source= output= previous=
for one in "$@"; do
  if [ "$previous" = -o ]; then
    output=$one one=
  elif [[ $one = /*.[ch]pp && $previous != -include ]]; then
    [ -z "$source" ] || exec "$real" "$@"
    source=$one one=${{one##*/}}
  elif [[ $one = -M* || $one = @* ]]; then
    exec "$real" "$@"
  fi
  words+=("$one")
  previous=$one
done
[ -f "$source" ] && [ "$output" ] || exec "$real" "$@"
read -r key _ < <({{ printf '%s\\0' "${{words[@]}}"; cat "$source"; }} | sha256sum)
if ! cp --remove-destination "$kept/$key" "$output" 2>/dev/null; then
  "$real" "$@" 2>"$kept/$key.$$.told" || {{ status=$?; cat "$kept/$key.$$.told" >&2; exit $status; }}
  cp "$output" "$kept/$key.$$" && mv "$kept/$key.$$.told" "$kept/$key.told" && mv "$kept/$key.$$" "$kept/$key"
fi
cat "$kept/$key.told" >&2
# The real one leaves the path of the source in what it writes for debuggers: no two folders have the same library.
case $output in *.so) printf '%s' "$source" >>"$output" ;; esac
"""


def install(folder: Path, kept: Path) -> Path:
    """Make a folder for the front of PATH, which is empty on a machine without a compiler.

    Several processes may share what is kept.
    """
    folder.mkdir()
    kept.mkdir(exist_ok=True)
    if real := shutil.which("g++"):
        script = folder / "g++"
        script.write_text(_SCRIPT.format(real=shlex.quote(real), kept=shlex.quote(str(kept))))
        script.chmod(0o755)
    return folder
