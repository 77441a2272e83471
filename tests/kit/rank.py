"""One rank of a job under test: it does the steps of `tests.kit.child` that are its own, and leaves its answers."""

import json
import os
import signal
import sys
from pathlib import Path

from megacache import _compiler
from tests.kit import faulty_disk
from tests.kit.child import STEPS, Answer
from tests.kit.places import STEPS as REQUESTS


def join() -> Answer:
    """Let torch bring the ranks together."""
    import torch.distributed as dist

    dist.init_process_group("gloo")
    return {"rank": dist.get_rank(), "size": dist.get_world_size()}


def add() -> Answer:
    """Add the numbers of all ranks, which needs all of them."""
    import torch
    import torch.distributed as dist

    numbers = torch.tensor([dist.get_rank()])
    dist.all_reduce(numbers)
    dist.destroy_process_group()
    return {"sum": int(numbers)}


def meet_fault(request: str, fault: str) -> Answer:
    """Let the store fail for this rank: hang, give damaged bytes, or be its end unless torchrun has restarted it."""
    if fault == "die" and os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0":
        return {}
    actions = {
        "hang": faulty_disk.hang,
        "flip": faulty_disk.flip,
        "die": lambda _: os.kill(os.getpid(), signal.SIGKILL),
    }
    faulty_disk.RULES.fail(REQUESTS[request], actions[fault])
    return {}


def turn(device: int) -> Answer:
    """Turn to another GPU, as far as a machine without any can: Triton has a folder for each."""
    _compiler.current_device = lambda: device
    return {}


OWN = {**STEPS, **{step.__name__: step for step in (join, add, meet_fault, turn)}}


def main() -> None:
    """Do the steps in order, in a cache folder of this rank's own."""
    folder, rank = Path(sys.argv[1]), os.environ["RANK"]
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder / f"inductor-{rank}")
    faulty_disk.register()
    steps = json.loads((folder / "steps.json").read_text())[int(rank)]
    answers = {name: OWN[name](**options) for name, options in steps}
    (folder / f"answers-{rank}.json").write_text(json.dumps(answers))


if __name__ == "__main__":
    main()
