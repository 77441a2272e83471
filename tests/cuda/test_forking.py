"""What the tests themselves do where there is a GPU."""

import os
from pathlib import Path

import pytest

from tests.kit import forking
from tests.kit.cuda_standin.building import RUNTIME


@pytest.mark.parametrize("gpu", [True, False])
def test_no_child_is_forked_where_there_is_a_gpu(standin: Path, gpu: bool) -> None:
    """A driver cannot be used in a process that was forked from one that has loaded it."""
    variables = {"LD_PRELOAD": str(standin / RUNTIME), "LD_LIBRARY_PATH": str(standin)} if gpu else {}
    environment = {**os.environ, **variables}
    assert forking.Server(environment).can_start(environment) is not gpu
