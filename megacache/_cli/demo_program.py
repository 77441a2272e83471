"""The program behind `megacache demo`: a small language model, compiled cold or started warm."""

import hashlib
import json
import sys
import time

import megacache

LAYERS, WIDTH, HEADS, TOKENS, VOCABULARY = 4, 128, 4, 64, 512


def main(mode: str) -> None:
    """Compile and run the model, warm or cold, publish to `MEGACACHE_URL`, and print what came of it as JSON."""
    started = time.perf_counter()
    warmed = megacache.warm() if mode == "warm" else None
    output = run_model()
    seconds = time.perf_counter() - started
    published = megacache.publish(strict=True)
    inductor = megacache.receipt().inductor
    answer = {
        "seconds": seconds,
        "loaded": "nothing" if warmed is None else str(warmed),
        "published": str(published),
        "hits": inductor.hit if inductor else 0,
        "misses": inductor.missed if inductor else 0,
        "digest": hashlib.sha256(output).hexdigest(),
        "url": published.url,
    }
    sys.stdout.write(f"{json.dumps(answer)}\n")


def run_model() -> bytes:
    """Compile a small language model with random weights, run it once, and give the bytes of its output."""
    import torch
    from torch import Tensor, nn
    from torch.nn.functional import gelu, scaled_dot_product_attention

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention_norm, self.mixing_norm = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
            self.projections, self.output = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
            self.wide, self.narrow = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

        def forward(self, x: Tensor) -> Tensor:
            batch, tokens, _ = x.shape
            parts = self.projections(self.attention_norm(x)).view(batch, tokens, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
            query, key, value = parts.unbind()
            attention = scaled_dot_product_attention(query, key, value, is_causal=True)
            x = x + self.output(attention.transpose(1, 2).reshape(x.shape))
            mixed: Tensor = x + self.narrow(gelu(self.wide(self.mixing_norm(x))))
            return mixed

    torch.manual_seed(0)
    layers = (Block() for _ in range(LAYERS))
    model = nn.Sequential(nn.Embedding(VOCABULARY, WIDTH), *layers, nn.LayerNorm(WIDTH), nn.Linear(WIDTH, VOCABULARY))
    # A graph that needs gradients has no entry in AOTAutograd's cache before its backward has run.
    with torch.no_grad():
        output: Tensor = torch.compile(model)(torch.arange(2 * TOKENS).view(2, TOKENS))
    # NumPy would be shorter, and need not be installed.
    return bytes(output.view(torch.uint8).flatten().tolist())


if __name__ == "__main__":
    try:
        main(sys.argv[1])
    except megacache.MegacacheError as fault:
        sys.exit(str(fault))
