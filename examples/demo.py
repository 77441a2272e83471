"""Show what a warm start is worth: compile a real model cold, publish it, and start warm in a second process.

    python examples/demo.py

Each process begins with an empty cache folder, and the second one must compute the same bits as the first. The store is
the default one, under the user's cache folder, unless MEGACACHE_URL names another.
"""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from typing import Any

import megacache

LAYERS, WIDTH, HEADS, TOKENS, VOCABULARY = 4, 128, 4, 64, 512

Answer = dict[str, Any]


def main() -> int:
    """Run the two processes, compare them and print a table."""
    print("compiling cold: this takes a while", file=sys.stderr)
    cold = run_child("cold")
    print("starting warm", file=sys.stderr)
    warm = run_child("warm")
    print_table(cold, warm)
    if cold["digest"] != warm["digest"]:
        print("the outputs differ", file=sys.stderr)
        return 1
    if warm["misses"] or not warm["hits"]:
        print("the second process did not start warm", file=sys.stderr)
        return 1
    return 0


def run_child(mode: str) -> Answer:
    """Run this file in a fresh process with an empty cache folder."""
    with tempfile.TemporaryDirectory(prefix="megacache-demo-") as folder:
        try:
            done = subprocess.run(
                [sys.executable, __file__, mode],
                env={**os.environ, "TORCHINDUCTOR_CACHE_DIR": folder},
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
        except subprocess.CalledProcessError as error:
            sys.exit(f"the {mode} process failed ({error}); on a CPU, torch.compile needs a C++ compiler such as g++")
    answer: Answer = json.loads(done.stdout.splitlines()[-1])
    return answer


def child(mode: str) -> None:
    """Compile and run the model, warm or cold, publish, and print what came of it as JSON."""
    started = time.perf_counter()
    warmed = megacache.warm() if mode == "warm" else None
    output = run_model()
    seconds = time.perf_counter() - started
    from torch._dynamo.utils import counters

    published = megacache.publish(strict=True)
    answer = {
        "seconds": seconds,
        "loaded": str(warmed) if warmed is not None else "nothing",
        "published": str(published),
        "hits": counters["inductor"]["fxgraph_cache_hit"],
        "misses": counters["inductor"]["fxgraph_cache_miss"],
        "digest": hashlib.sha256(output).hexdigest(),
        "url": published.url,
    }
    print(json.dumps(answer))


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
    with torch.no_grad():
        output: Tensor = torch.compile(model)(torch.arange(2 * TOKENS).view(2, TOKENS))
    return bytes(output.view(torch.uint8).flatten().tolist())


def print_table(cold: Answer, warm: Answer) -> None:
    """Print what the two processes did, side by side."""
    rows = [
        ("", "cold", "warm"),
        ("seconds to first output", f"{cold['seconds']:.1f}", f"{warm['seconds']:.1f}"),
        ("graphs found / compiled", f"{cold['hits']} / {cold['misses']}", f"{warm['hits']} / {warm['misses']}"),
        ("output", cold["digest"][:12], warm["digest"][:12]),
    ]
    for name, left, right in rows:
        print(f"{name:<26}{left:>14}{right:>14}")
    print(f"warm start  {warm['loaded']}")
    print(f"published   {cold['published']}")
    print(f"stored at   {cold['url']}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        child(sys.argv[1])
    else:
        sys.exit(main())
