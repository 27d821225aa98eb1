"""The speed of vision transformers, against PyTorch (transformers, with its fused attention) on the same device.

    python -m benchmarks.vision_transformers --torch
    python -m benchmarks.vision_transformers --torch --backbone vit_base_patch14_dinov2 --image-size 518 \
        --batch-size 64 --dtype bfloat16

Arbitrary weights. All run interleaved in one process, and the median of the rounds counts. Lines on stderr say what is
going on, with the seconds since the start. Unlike the other benchmarks, this one needs no more than JAX, Flax and, for
`--torch`, the extra torch-parity, so that it runs on a bare GPU machine.
"""

import argparse
import math
import os
import sys
import time

os.environ.setdefault('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')  # PyTorch needs memory of the same GPU

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from ssanet_jax.experiments.timing import Workload, time_interleaved
from ssanet_jax.models.backbones.registry import build_backbone, list_backbones
from ssanet_jax.models.backbones.vision_transformer import GatedMLP, VisionTransformer

NAMES = [name for name in list_backbones() if name.startswith('vit_')]
OURS, TORCH = 'this', 'PyTorch'
_START = time.monotonic()


def main() -> None:
    parser = argparse.ArgumentParser(description='Images per second of a vision transformer.')
    parser.add_argument('--backbone', choices=NAMES, default='vit_small_patch14_dinov2')
    parser.add_argument('--image-size', type=int, default=224, help='side of the images, pixels')
    parser.add_argument('--batch-size', type=int, default=8)
    parser.add_argument('--dtype', choices=('float32', 'bfloat16'), default='float32', help='type of the computation')
    parser.add_argument('--backward', action='store_true', help='time forward and backward, not forward alone')
    parser.add_argument('--torch', action='store_true', help='compare with PyTorch')
    parser.add_argument('--rounds', type=int, default=7)
    given = parser.parse_args()
    passes = 'forward + backward' if given.backward else 'forward'
    where = f'{given.backbone}, {given.image_size}, batch {given.batch_size}, {given.dtype}, {passes}'
    print(f'{where}, {jax.devices()[0].device_kind}, jax {jax.__version__}', flush=True)
    log('making images and weights')
    shape = given.batch_size, given.image_size, given.image_size, 3
    images = np.random.default_rng(0).standard_normal(shape, np.float32)
    module = fill_weights(given.backbone, jnp.dtype(given.dtype))
    workloads = {OURS: ours(module, images, given.backward)}
    if given.torch:
        log('importing torch and transformers')
        workloads[TORCH] = theirs(module, images, given.backward)
    seconds = time_interleaved(workloads, given.rounds, log)
    for name, each in seconds.items():
        print(f'{name}: {1e3 * each:.1f} ms, {given.batch_size / each:.1f} images/s')
    if TORCH in seconds:
        print(f'{OURS} / {TORCH}: {seconds[OURS] / seconds[TORCH]:.2f}')


def log(message: str) -> None:
    """Writes what begins now to stderr."""
    print(f'{time.monotonic() - _START:5.1f} s: {message}', file=sys.stderr, flush=True)


def fill_weights(name: str, dtype: jnp.dtype) -> VisionTransformer:
    """A vision transformer with arbitrary small weights, in one program that compiles within a second.

    Initializing it would draw each array by a program of its own. The values do not affect the time.
    """
    graph, state = nnx.split(nnx.eval_shape(lambda: build_backbone(name, nnx.Rngs(0), dtype)))

    def fill(shape: jax.ShapeDtypeStruct) -> jax.Array:
        waves = jnp.cos(jnp.arange(math.prod(shape.shape), dtype=jnp.float32))
        return 0.02 * waves.reshape(shape.shape).astype(shape.dtype)

    return nnx.merge(graph, jax.jit(lambda: jax.tree.map(fill, state))())


def ours(module: VisionTransformer, images: np.ndarray, backward: bool) -> Workload:
    """One pass of the project's network, compiled; without `backward`, to the tokens."""
    graph, params, rest = nnx.split(module, nnx.Param, ...)

    def tokens(params, images):
        (level,) = nnx.merge(graph, params, rest, copy=True).pyramid(images)
        return level.token, level.map

    def loss(params, images):
        return sum(jnp.square(each.astype(jnp.float32)).mean() for each in tokens(params, images))

    run = jax.jit(jax.grad(loss) if backward else tokens)
    on_device = jax.device_put(images)
    return lambda: jax.block_until_ready(run(params, on_device))


def theirs(module: VisionTransformer, images: np.ndarray, backward: bool) -> Workload:
    """The same pass in PyTorch, by the network of transformers with the same sizes."""
    import torch
    import transformers

    device = torch.device('cuda' if jax.default_backend() == 'gpu' else 'cpu')
    log(f'building the network of transformers on {device}')
    block = module.blocks[0]
    sizes = dict(
        hidden_size=module.num_features,
        num_hidden_layers=len(module.blocks),
        num_attention_heads=block.attention.num_heads,
        patch_size=module.stride,
        image_size=module.grid * module.stride,
        attn_implementation='sdpa',
    )
    gated, registers = isinstance(block.mlp, GatedMLP), 0 if module.registers is None else len(module.registers[...])
    with device:  # draws the weights there
        if module.positions is None:
            settings = dict(intermediate_size=block.mlp.expand.out_features, use_gated_mlp=gated)
            config = transformers.DINOv3ViTConfig(**sizes, **settings, num_register_tokens=registers)
            network = transformers.DINOv3ViTModel(config)
        elif registers:
            config = transformers.Dinov2WithRegistersConfig(
                **sizes, use_swiglu_ffn=gated, num_register_tokens=registers
            )
            network = transformers.Dinov2WithRegistersModel(config)
        else:
            network = transformers.Dinov2Model(transformers.Dinov2Config(**sizes, use_swiglu_ffn=gated))
    network = network.to(device, getattr(torch, module.dtype.name)).eval()
    pixels = torch.from_numpy(images.transpose(0, 3, 1, 2).copy()).to(device)
    wait = torch.cuda.synchronize if device.type == 'cuda' else lambda: None

    def forward():
        with torch.inference_mode():
            result = network(pixels).last_hidden_state
        wait()
        return result

    def both():
        network.zero_grad(set_to_none=True)
        network(pixels).last_hidden_state.float().square().mean().backward()
        wait()

    return both if backward else forward


if __name__ == '__main__':
    main()
