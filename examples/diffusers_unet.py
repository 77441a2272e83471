"""Denoise with a UNet of diffusers.

It is made from a config with random weights: nothing is downloaded, and nothing is to be seen in what it draws.

    pip install diffusers
    export MEGACACHE_URL=s3://bucket/unet/v1
    TORCHINDUCTOR_CACHE_DIR=$(mktemp -d) python diffusers_unet.py
"""

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel

import megacache

torch.manual_seed(0)
device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
unet = UNet2DConditionModel(
    sample_size=8,
    block_out_channels=(8,),
    down_block_types=("CrossAttnDownBlock2D",),
    up_block_types=("CrossAttnUpBlock2D",),
    layers_per_block=1,
    norm_num_groups=4,
    cross_attention_dim=16,
    attention_head_dim=4,
).to(device)
unet.eval().compile_repeated_blocks(fullgraph=True)  # or all of it: unet = torch.compile(unet, fullgraph=True)

scheduler = DDIMScheduler()
scheduler.set_timesteps(4)
prompt = torch.linspace(-1, 1, 4 * 16, device=device).reshape(1, 4, 16)
latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0)).to(device)

print("warm:", megacache.warm())
with torch.no_grad():
    for timestep in scheduler.timesteps:
        noise = unet(latents, timestep, encoder_hidden_states=prompt).sample
        latents = scheduler.step(noise, timestep, latents).prev_sample
print("output:", latents.double().sum().item())
print("publish:", megacache.publish())
print("receipt:", megacache.receipt())
