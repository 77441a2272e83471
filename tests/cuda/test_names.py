"""PyTorch's private names, of which a CUDA build has other ones than a CPU build."""

from pathlib import Path

import pytest

from megacache import _compiler
from tests.kit.torch_names import absent

SAMPLE = """
def asks():
    import torch
    from torch import nothing_like_it
    from torch.nn import functional as F

    native: object = torch._C
    native._nor_this()
    F.relu, F.no_such_function
    if hasattr(torch, "perhaps"):
        torch.perhaps()
    try:
        from torch.nowhere import older
    except ImportError:
        from torch.elsewhere import older
"""


def test_absent_names_are_found(tmp_path: Path) -> None:
    """Imports and attributes that torch does not have are found, and what code is prepared to miss is left out."""
    (tmp_path / "sample.py").write_text(SAMPLE)
    assert absent(tmp_path / "sample.py") == [
        "sample.py:4: torch.nothing_like_it",
        "sample.py:8: torch._C._nor_this",
        "sample.py:9: torch.nn.functional.no_such_function",
    ]


@pytest.mark.usefixtures("standin")
def test_every_name_exists_in_a_cuda_build() -> None:
    """All that the door to torch asks for is in this build for CUDA."""
    assert absent(*sorted(Path(_compiler.__file__).parent.rglob("*.py"))) == []
