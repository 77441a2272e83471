"""What a variant is: one way to give a fresh process what another one has compiled."""

import getpass
import importlib.util
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """Where one model's variants keep what they start from; it outlives the processes."""

    folder: str
    """On local disk; stands for every shared disk and volume."""
    s3_url: str = ""
    """Empty where S3 is not served."""
    s3_options: Mapping[str, Any] = field(default_factory=dict)
    redis_url: str = ""
    """Empty where no redis server runs."""

    def path(self, *parts: str) -> Path:
        """Name a file or folder on the local disk."""
        return Path(self.folder, *parts)


def default_folder(tmp: Path) -> Path:
    """Name the folder that torch caches in by default, without importing what would create it."""
    return tmp / f"torchinductor_{getpass.getuser()}"


def triton_folder() -> Path:
    """Name the folder that Triton caches in until PyTorch's compiler names another.

    There are its driver's module, which it builds with the C compiler at its first use, and kernels outside of graphs.
    """
    return Path(os.environ.get("TRITON_HOME") or Path.home(), ".triton", "cache")


class Variant:
    """Do nothing: the base of all variants, and as it stands the cold start."""

    name: ClassVar[str]
    told: ClassVar[str]
    """What it does, as the report tells it."""
    preparation: ClassVar[str] = "shared"
    """Variants of one preparation publish from one process, which none of them may make other than a plain one."""
    packages: ClassVar[tuple[str, ...]] = ()
    """What can be absent; the variant is left out then."""
    programs: ClassVar[tuple[str, ...]] = ()

    def missing(self) -> str:
        """Tell what is not installed here; empty if it can run."""
        packages = [f"Python package {name}" for name in self.packages if importlib.util.find_spec(name) is None]
        programs = [f"program {name}" for name in self.programs if shutil.which(name) is None]
        return ", ".join(packages + programs)

    def variables(self, stored: Stored, tmp: Path) -> Mapping[str, str]:
        """Give the environment variables of its processes, which have an empty temporary folder."""
        del stored, tmp
        return {}

    def import_package(self) -> None:
        """Import what it needs beside torch."""

    @contextmanager
    def prepared(self, stored: Stored) -> Iterator[None]:
        """Surround a cold compilation whose results it publishes."""
        del stored
        yield

    @contextmanager
    def started(self, stored: Stored) -> Iterator[None]:
        """Surround a warm start; raise unless what was published has been taken."""
        del stored
        yield
