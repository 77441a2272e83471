"""The models that are compiled: plain torch, in inference, with random weights that are the same in every process."""

from collections.abc import Callable, Mapping

import torch

from examples.benchmark.models import gpt, llama, resnet, unet
from examples.benchmark.models.case import Case, Size

_SEED = 20
_MAKERS: Mapping[str, Callable[[Size], Case]] = {
    "resnet152": resnet.make,
    "gpt": gpt.make,
    "llama": llama.make,
    "unet": unet.make,
    "resnet152-cudagraphs": resnet.make_with_cudagraphs,
}

MODELS = ("resnet152", "gpt", "llama", "unet")
"""What is compiled on every machine."""
GPU_MODELS = ("resnet152-cudagraphs", "llama", "gpt", "unet", "resnet152")
"""What is compiled on a GPU, first what a short run must not miss: the case of which fal has published figures."""


def build(name: str, *, size: Size, device: str) -> Case:
    """Make a model by name, with the weights and the input that every process gets."""
    torch.manual_seed(_SEED)
    return _MAKERS[name](size).on(device)
