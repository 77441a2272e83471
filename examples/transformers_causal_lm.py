"""Generate with a Llama of transformers.

It is made from a config with random weights: nothing is downloaded, and it talks nonsense.

    pip install transformers
    export MEGACACHE_URL=s3://bucket/llama/v1
    TORCHINDUCTOR_CACHE_DIR=$(mktemp -d) python transformers_causal_lm.py
"""

import torch
from transformers import LlamaConfig, LlamaForCausalLM

import megacache

torch.manual_seed(0)
device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
config = LlamaConfig(
    vocab_size=128,
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=64,
)
model = LlamaForCausalLM(config).to(device).eval()
# All layers have one graph. Or all of it: model.forward = torch.compile(model.forward, dynamic=False)
for layer in model.model.layers:
    layer.compile(dynamic=False)
prompt = torch.arange(1, 9, device=device)[None]

print("warm:", megacache.warm())
# A static cache of keys and values keeps the shapes: one graph for the prompt, one for each further token.
tokens = model.generate(prompt, max_new_tokens=8, do_sample=False, cache_implementation="static", pad_token_id=0)
print("output:", tokens[0].tolist())
print("publish:", megacache.publish())
print("receipt:", megacache.receipt())
