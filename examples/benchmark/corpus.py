"""A synthetic cache: artifacts of a realistic size whose contents compress like text or not at all."""

import base64
import hashlib
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

Content = Literal["text", "binary"]
"""`text` stands for the graphs and sources in CPU artifacts, `binary` for the cubins in those of GPUs."""

SMALLEST, LARGEST = 100_000, 2_000_000
"""Bytes of one artifact, as a graph of a few layers or of a whole model takes."""

_KERNEL = """
cpp_fused_{op}_{n} = async_compile.cpp_pybinding(['const float*', 'const float*', 'float*', 'float*'], r'''
#include <torch/csrc/inductor/cpp_prefix.h>
extern "C" void kernel(const float* in_ptr{a}, const float* in_ptr{b}, float* out_ptr0, float* out_ptr1)
{{
    #pragma omp parallel num_threads({threads})
    {{
        #pragma omp for
        for(int64_t x0=static_cast<int64_t>(0L); x0<static_cast<int64_t>({rows}L); x0+=static_cast<int64_t>(1L))
        {{
            for(int64_t x1=static_cast<int64_t>(0L); x1<static_cast<int64_t>({columns}L); x1+=static_cast<int64_t>(16L))
            {{
                auto tmp0 = at::vec::Vectorized<float>::loadu(in_ptr{a} + static_cast<int64_t>(x1 + {columns}L*x0), 16);
                auto tmp1 = at::vec::Vectorized<float>::loadu(in_ptr{b} + static_cast<int64_t>(x1), 16);
                auto tmp2 = static_cast<float>(0.{n});
                auto tmp{k} = tmp0 {sign} tmp1 * at::vec::Vectorized<float>(tmp2);
                tmp{k}.store(out_ptr0 + static_cast<int64_t>(x1 + {columns}L*x0));
            }}
        }}
    }}
}}
''')
"""
_GRAPH = """
    # File: model.py:{n} in forward, code: x = self.{op}(x) {sign} y
    {op}_{a}: "f32[{rows}, {columns}][{columns}, 1]cpu" = torch.ops.aten.{op}.Tensor(view_{k}, permute_{b});
    permute_{b}: "f32[{columns}, {rows}][1, {columns}]cpu" = torch.ops.aten.permute.default(primals_{k}, [1, 0]);
    buf{k} = empty_strided_cpu(({rows}, {columns}), ({columns}, 1), torch.float32)
    [{digest}] example_inputs[{a}]: TensorMetadata(dtype=torch.float32, shape=torch.Size([{rows}, {columns}]))
    [{digest}] inductor_config[{op}_{b}]: {n}
"""
_STATE = b"guards_expr"
"""What each entry of AOTAutograd's cache has, and no reader does without."""
_OPERATORS = ("add", "mul", "sub", "div", "silu", "gelu", "native_layer_norm", "_softmax", "convolution", "addmm")


def write_corpus(folder: Path, content: Content, size: int) -> None:
    """Write artifacts of `size` bytes in all, each to a file named by its key."""
    folder.mkdir(parents=True)
    source = random.Random(size)
    left = size
    while left:
        length = min(left, source.randint(SMALLEST, LARGEST))
        data = _STATE + (source.randbytes(length) if content == "binary" else _text(source, length))[len(_STATE) :]
        (folder / _key(data)).write_bytes(data)
        left -= length


def _text(source: random.Random, length: int) -> bytes:
    text = "".join(_pieces(source, length))
    return text[:length].encode()


def _pieces(source: random.Random, length: int) -> Iterator[str]:
    while length > 0:
        template = source.choice((_KERNEL, _GRAPH, _GRAPH))
        piece = template.format(
            op=source.choice(_OPERATORS),
            sign=source.choice("+-*"),
            n=source.randint(0, 9999),
            a=source.randint(0, 300),
            b=source.randint(0, 300),
            k=source.randint(0, 300),
            rows=1 << source.randint(4, 12),
            columns=64 * source.randint(1, 64),
            threads=2,
            digest=source.randbytes(10).hex(),
        )
        yield piece
        length -= len(piece)


def _key(data: bytes) -> str:
    """Make a key of the form that AOTAutograd's cache has: `a` and 51 letters of base32."""
    return "a" + base64.b32encode(hashlib.sha256(data).digest()).decode().lower()[:51]
