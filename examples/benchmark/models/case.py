"""One model as it is compiled."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from torch import Tensor, nn

Size = Literal["quick", "cpu", "cuda"]
"""`quick` to see that it works; `cpu` compiles in some 20 to 60 s on two cores; `cuda` gives a GPU something to do, and
has weights that are drawn in a second or two."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A model, what it is given, and how it is compiled."""

    model: nn.Module
    example: tuple[Tensor, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    """What `torch.compile` takes besides the model."""

    def on(self, device: str) -> "Case":
        """Move it to a device; weights and input are drawn on the CPU, so that they are the same everywhere."""
        example = tuple(tensor.to(device) for tensor in self.example)
        return replace(self, model=self.model.eval().to(device), example=example)
