r"""Maps from the parameter names of torch checkpoints to paths in the NNX backbones: one table per family.

A rule is (pattern of torch names, path in the module, transform of the array); `\1` in the path is the first group of
the match. Several paths stand for a tensor that holds several layers: it is split into equal parts along its first
axis, and a part whose path is None is not needed. A table covers the names of all libraries that publish weights of the
family, which do not overlap. Weights are loaded only if all of them fit.
"""

import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from ssanet_jax.errors import UserError

Transform = Callable[[np.ndarray], np.ndarray]
Paths = str | tuple[str | None, ...] | Callable[[re.Match], str]
Rule = tuple[str, Paths | None, Transform]


def keep(array: np.ndarray) -> np.ndarray:
    """Identity, for biases and the vectors of normalization layers."""
    return array


def conv(array: np.ndarray) -> np.ndarray:
    """[O, I, k, k] -> [k, k, I, O]."""
    return array.transpose(2, 3, 1, 0)


def pointwise(array: np.ndarray) -> np.ndarray:
    """[O, I, 1, 1] -> [I, O]."""
    if array.shape[2:] != (1, 1):
        raise ValueError(f'not a 1x1 convolution: {array.shape}')
    return array[:, :, 0, 0].T


def linear(array: np.ndarray) -> np.ndarray:
    """[O, I] -> [I, O]."""
    return array.transpose(1, 0)


def flat(array: np.ndarray) -> np.ndarray:
    """[C, 1, 1] -> [C]."""
    return array.reshape(array.shape[0])


def token(array: np.ndarray) -> np.ndarray:
    """[1, 1, C] -> [C]."""
    return array[0, 0]


def tokens(array: np.ndarray) -> np.ndarray:
    """[1, n, C] -> [n, C]."""
    return array[0]


def positions(array: np.ndarray) -> np.ndarray:
    """[1, n, C] -> [1 + g * g, C], the class token's first.

    timm adds that one to the class token itself where there are registers: n is then a square, and the row is zero.
    """
    rows = array[0]
    return rows if math.isqrt(len(rows)) ** 2 != len(rows) else np.concatenate([np.zeros_like(rows[:1]), rows])


def depthwise(array: np.ndarray) -> np.ndarray:
    """[C, 1, k, k] -> [k, k, C]."""
    if array.shape[1] != 1:
        raise ValueError(f'not a depthwise convolution: {array.shape}')
    return array[:, 0].transpose(1, 2, 0)


def _norm(torch_name: str, path: str | Callable[[re.Match], str]) -> tuple[Rule, ...]:
    """The rules of a BatchNorm."""
    pairs = (('weight', 'scale'), ('bias', 'bias'), ('running_mean', 'mean'), ('running_var', 'var'))

    def child(ours: str) -> str | Callable[[re.Match], str]:
        if isinstance(path, str):
            return f'{path}.{ours}'
        make_path = path
        return lambda match: f'{make_path(match)}.{ours}'

    return tuple((rf'{torch_name}\.{theirs}', child(ours), keep) for theirs, ours in pairs)


def _affine(torch_name: str, path: str) -> tuple[Rule, ...]:
    """The rules of a LayerNorm."""
    pairs = (('weight', 'scale'), ('bias', 'bias'))
    return tuple((rf'(?:{torch_name})\.{theirs}', f'{path}.{ours}', keep) for theirs, ours in pairs)


def _dense(torch_name: str, path: str) -> tuple[Rule, ...]:
    """The rules of a linear layer."""
    return ((rf'{torch_name}\.weight', f'{path}.kernel', linear), (rf'{torch_name}\.bias', f'{path}.bias', keep))


# A path of None: a known tensor that is not needed.
_IGNORED: tuple[Rule, ...] = ((r'(.*\.)?num_batches_tracked', None, keep), (r'(_fc|fc|classifier)\..*', None, keep))


def _efficientnet_lite(repeats: Sequence[int]) -> tuple[Rule, ...]:
    """EfficientNet-Lite of the PyTorch package, and timm's `tf_efficientnet_lite`.

    Args:
      repeats: number of blocks in each stage. timm numbers them within a stage (`blocks.2.1`), the package and this
        project across all stages (`blocks.4`).
    """
    first = [sum(repeats[:stage]) for stage in range(len(repeats))]

    def block(layer):
        return lambda match: f'blocks.{first[int(match[1])] + int(match[2])}.{layer}'

    timm, timm_first = r'blocks\.([1-6])\.(\d+)', r'blocks\.(0)\.(\d+)'  # blocks of the first stage have no expansion
    return _IGNORED + (
        (r'_conv_stem\.weight', r'stem.kernel', conv),
        *_norm(r'_bn0', r'stem_norm'),
        (r'_blocks\.(\d+)\._expand_conv\.weight', r'blocks.\1.expand.kernel', pointwise),
        *_norm(r'_blocks\.(\d+)\._bn0', r'blocks.\1.expand_norm'),
        (r'_blocks\.(\d+)\._depthwise_conv\.weight', r'blocks.\1.depthwise.kernel', depthwise),
        *_norm(r'_blocks\.(\d+)\._bn1', r'blocks.\1.depthwise_norm'),
        (r'_blocks\.(\d+)\._project_conv\.weight', r'blocks.\1.project.kernel', pointwise),
        *_norm(r'_blocks\.(\d+)\._bn2', r'blocks.\1.project_norm'),
        (r'_conv_head\.weight', r'head.kernel', pointwise),
        *_norm(r'_bn1', r'head_norm'),
        # timm
        (r'conv_stem\.weight', r'stem.kernel', conv),
        *_norm(r'bn1', r'stem_norm'),
        (rf'{timm_first}\.conv_dw\.weight', block('depthwise.kernel'), depthwise),
        *_norm(rf'{timm_first}\.bn1', block('depthwise_norm')),
        (rf'{timm_first}\.conv_pw\.weight', block('project.kernel'), pointwise),
        *_norm(rf'{timm_first}\.bn2', block('project_norm')),
        (rf'{timm}\.conv_pw\.weight', block('expand.kernel'), pointwise),
        *_norm(rf'{timm}\.bn1', block('expand_norm')),
        (rf'{timm}\.conv_dw\.weight', block('depthwise.kernel'), depthwise),
        *_norm(rf'{timm}\.bn2', block('depthwise_norm')),
        (rf'{timm}\.conv_pwl\.weight', block('project.kernel'), pointwise),
        *_norm(rf'{timm}\.bn3', block('project_norm')),
        (r'conv_head\.weight', r'head.kernel', pointwise),
        *_norm(r'bn2', r'head_norm'),
    )


EFFICIENTNET_LITE0 = _efficientnet_lite((1, 2, 2, 3, 3, 4, 1))
EFFICIENTNET_LITE1 = EFFICIENTNET_LITE2 = _efficientnet_lite((1, 3, 3, 4, 4, 5, 1))


def _resnet(kernels: Mapping[int, Transform]) -> tuple[Rule, ...]:
    """Torchvision's and timm's ResNet, named alike; `kernels`: number of the convolution in a block -> transform."""
    rules = _IGNORED + ((r'conv1\.weight', r'stem.kernel', conv), *_norm(r'bn1', r'stem_norm'))
    for stage in range(4):
        theirs, ours = rf'layer{stage + 1}\.(\d+)', rf'stages.{stage}.\1'
        for number, transform in kernels.items():
            rules += ((rf'{theirs}\.conv{number}\.weight', rf'{ours}.conv{number}.kernel', transform),)
            rules += _norm(rf'{theirs}\.bn{number}', rf'{ours}.norm{number}')
        rules += ((rf'{theirs}\.downsample\.0\.weight', rf'{ours}.shortcut.kernel', pointwise),)
        rules += _norm(rf'{theirs}\.downsample\.1', rf'{ours}.shortcut_norm')
    return rules


RESNET_BASIC = _resnet({1: conv, 2: conv})
RESNET_BOTTLENECK = _resnet({1: pointwise, 2: conv, 3: pointwise})


def _convnext() -> tuple[Rule, ...]:
    """ConvNeXt of torchvision, which numbers stages and the downsampling between them in one sequence, and of timm.

    DINOv3's in transformers have names of their own: the stem is the downsampling of the first stage.
    """
    stem = r'(?:features\.0|stem|(?:model\.)?stages\.0\.downsample_layers)'
    rules = (
        (rf'{stem}\.0\.weight', r'stem.kernel', conv),
        (rf'{stem}\.0\.bias', r'stem.bias', keep),
        *_affine(rf'{stem}\.1', r'stem_norm'),
        *_affine(r'classifier\.0|head\.norm|layer_norm', r'head_norm'),
        (r'(classifier\.2|head\.fc)\..*', None, keep),
    )
    for stage in range(4):
        ours = rf'stages.{stage}.\1'
        theirs = rf'features\.{2 * stage + 1}\.(\d+)'
        rules += (
            (rf'{theirs}\.layer_scale', rf'{ours}.layer_scale', flat),
            (rf'{theirs}\.block\.0\.weight', rf'{ours}.depthwise.kernel', depthwise),
            (rf'{theirs}\.block\.0\.bias', rf'{ours}.depthwise.bias', keep),
            *_affine(rf'{theirs}\.block\.2', rf'{ours}.norm'),
            *_dense(rf'{theirs}\.block\.3', rf'{ours}.expand'),
            *_dense(rf'{theirs}\.block\.5', rf'{ours}.project'),
        )
        theirs = rf'stages\.{stage}\.blocks\.(\d+)'
        rules += (
            (rf'{theirs}\.gamma', rf'{ours}.layer_scale', keep),
            (rf'{theirs}\.conv_dw\.weight', rf'{ours}.depthwise.kernel', depthwise),
            (rf'{theirs}\.conv_dw\.bias', rf'{ours}.depthwise.bias', keep),
            *_affine(rf'{theirs}\.norm', rf'{ours}.norm'),
            *_dense(rf'{theirs}\.mlp\.fc1', rf'{ours}.expand'),
            *_dense(rf'{theirs}\.mlp\.fc2', rf'{ours}.project'),
        )
        theirs = rf'(?:model\.)?stages\.{stage}\.layers\.(\d+)'
        rules += (
            (rf'{theirs}\.gamma', rf'{ours}.layer_scale', keep),
            (rf'{theirs}\.depthwise_conv\.weight', rf'{ours}.depthwise.kernel', depthwise),
            (rf'{theirs}\.depthwise_conv\.bias', rf'{ours}.depthwise.bias', keep),
            *_affine(rf'{theirs}\.layer_norm', rf'{ours}.norm'),
            *_dense(rf'{theirs}\.pointwise_conv1', rf'{ours}.expand'),
            *_dense(rf'{theirs}\.pointwise_conv2', rf'{ours}.project'),
        )
        if stage > 0:
            dinov3 = rf'(?:model\.)?stages\.{stage}\.downsample_layers'
            theirs = rf'(?:features\.{2 * stage}|stages\.{stage}\.downsample|{dinov3})'
            rules += (
                *_affine(rf'{theirs}\.0', rf'shrinks.{stage - 1}.norm'),
                (rf'{theirs}\.1\.weight', rf'shrinks.{stage - 1}.conv.kernel', conv),
                (rf'{theirs}\.1\.bias', rf'shrinks.{stage - 1}.conv.bias', keep),
            )
    return rules


CONVNEXT = _convnext()


def _vision_transformer(*, gated: bool, key_bias: bool) -> tuple[Rule, ...]:
    """DINOv2 and DINOv3 of transformers, timm and the original repositories.

    transformers has one layer each for queries, keys and values; the others have one for all three.

    Args:
      gated: whether the MLP is a SwiGLU. That of DINOv2 has one layer for both of its inputs, which timm calls `fc1`.
      key_bias: whether keys have a bias. DINOv3 has none; the original repository masks it.
    """
    theirs, ours = r'(?:(?:encoder\.|model\.)?layer|blocks)\.(\d+)', r'blocks.\1'
    attention, mlp = rf'{theirs}\.(?:attention|attn)', rf'{theirs}\.mlp'
    separate = lambda path, *names: tuple(rf'{ours}.{name}.{path}' for name in names)
    kernels = separate('kernel', 'attention.query', 'attention.key', 'attention.value')
    biases = separate('bias', 'attention.query', 'attention.key', 'attention.value')
    inner: tuple[Rule, ...] = _dense(rf'{mlp}\.(?:fc1|up_proj)', rf'{ours}.mlp.expand')
    if gated:
        packed = rf'{mlp}\.(?:weights_in|w12|fc1)'
        inner = (
            (rf'{packed}\.weight', separate('kernel', 'mlp.gate', 'mlp.expand'), linear),
            (rf'{packed}\.bias', separate('bias', 'mlp.gate', 'mlp.expand'), keep),
            *_dense(rf'{mlp}\.(?:gate_proj|fc1_g|w1)', rf'{ours}.mlp.gate'),
            *_dense(rf'{mlp}\.(?:up_proj|fc1_x|w2)', rf'{ours}.mlp.expand'),
        )
    return (
        (r'(embeddings\.)?mask_token|rope_embed\.periods|.*\.bias_mask', None, keep),
        (r'(?:embeddings\.)?cls_token', r'class_token', token),
        (r'embeddings\.register_tokens|reg(?:ister)?_tokens?|storage_tokens', r'registers', tokens),
        (r'embeddings\.position_embeddings|pos_embed', r'positions', positions),
        (r'(?:embeddings\.patch_embeddings(?:\.projection)?|patch_embed\.proj)\.weight', r'patch_embed.kernel', conv),
        (r'(?:embeddings\.patch_embeddings(?:\.projection)?|patch_embed\.proj)\.bias', r'patch_embed.bias', keep),
        *_affine(r'layernorm|norm', r'norm'),
        *_affine(rf'{theirs}\.norm1', rf'{ours}.norm1'),
        *_affine(rf'{theirs}\.norm2', rf'{ours}.norm2'),
        (rf'{attention}\.qkv\.weight', kernels, linear),
        (rf'{attention}\.qkv\.bias', biases if key_bias else (biases[0], None, biases[2]), keep),
        (rf'{attention}\.q_bias', rf'{ours}.attention.query.bias', keep),
        (rf'{attention}\.v_bias', rf'{ours}.attention.value.bias', keep),
        *_dense(rf'{attention}\.(?:attention\.query|q_proj)', rf'{ours}.attention.query'),
        *_dense(rf'{attention}\.(?:attention\.key|k_proj)', rf'{ours}.attention.key'),
        *_dense(rf'{attention}\.(?:attention\.value|v_proj)', rf'{ours}.attention.value'),
        *_dense(rf'{attention}\.(?:output\.dense|o_proj|proj)', rf'{ours}.attention.project'),
        *inner,
        *_dense(rf'{mlp}\.(?:fc2|weights_out|down_proj|w3)', rf'{ours}.mlp.project'),
        (rf'{theirs}\.(?:layer_scale1\.lambda1|ls1\.gamma|gamma_1)', rf'{ours}.scale1', keep),
        (rf'{theirs}\.(?:layer_scale2\.lambda1|ls2\.gamma|gamma_2)', rf'{ours}.scale2', keep),
    )


DINOV2, DINOV2_GATED = (_vision_transformer(gated=gated, key_bias=True) for gated in (False, True))
DINOV3, DINOV3_GATED = (_vision_transformer(gated=gated, key_bias=False) for gated in (False, True))
# Name of the backbone -> its table. A backbone that is not here has no public weights.
FAMILIES: dict[str, tuple[Rule, ...]] = {
    'resnet18': RESNET_BASIC,
    'resnet34': RESNET_BASIC,
    'resnet50': RESNET_BOTTLENECK,
    'resnet101': RESNET_BOTTLENECK,
    'resnet152': RESNET_BOTTLENECK,
    'efficientnet_lite0': EFFICIENTNET_LITE0,
    'efficientnet_lite1': EFFICIENTNET_LITE1,
    'efficientnet_lite2': EFFICIENTNET_LITE2,
    'convnext_tiny': CONVNEXT,
    'convnext_small': CONVNEXT,
    'convnext_base': CONVNEXT,
    'convnext_large': CONVNEXT,
    'vit_small_patch14_dinov2': DINOV2,
    'vit_base_patch14_dinov2': DINOV2,
    'vit_large_patch14_dinov2': DINOV2,
    'vit_giant_patch14_dinov2': DINOV2_GATED,
    'vit_small_patch14_reg4_dinov2': DINOV2,
    'vit_base_patch14_reg4_dinov2': DINOV2,
    'vit_large_patch14_reg4_dinov2': DINOV2,
    'vit_giant_patch14_reg4_dinov2': DINOV2_GATED,
    'vit_small_patch16_dinov3': DINOV3,
    'vit_base_patch16_dinov3': DINOV3,
    'vit_large_patch16_dinov3': DINOV3,
    'vit_small_plus_patch16_dinov3': DINOV3_GATED,
    'vit_huge_plus_patch16_dinov3': DINOV3_GATED,
}

# Table -> paths that a checkpoint may leave out, all at once, because they are zero. timm publishes DINOv3 without the
# biases of queries and values, which are zero in all of its weights.
_ZERO_IF_ABSENT = dict.fromkeys((DINOV3, DINOV3_GATED), r'blocks\.\d+\.attention\.(?:query|value)\.bias')


def map_names(
    tensors: Mapping[str, np.ndarray],
    rules: tuple[Rule, ...],
    expected: Mapping[str, tuple[int, ...]],
    source: str,
) -> dict[str, np.ndarray]:
    """Renames and transposes the tensors of a torch checkpoint for an NNX module.

    Args:
      tensors: {torch name: array}.
      rules: the table of the family; the first matching rule applies.
      expected: {dotted NNX path: shape} for all parameters and statistics of the module.
      source: the origin of the checkpoint, for the error message.

    Returns:
      {dotted NNX path: array of a floating-point type}, with exactly the keys of `expected`; views of `tensors`.

    Raises:
      UserError: tensors are missing, unexpected, wrongly shaped or not of a floating-point type, all in one line.
    """
    found, names, unexpected, failed = {}, {}, [], set()
    paths: Sequence[str | None]
    for name, array in tensors.items():
        rule = match_rule(name, rules)
        if rule is None:
            unexpected.append(name)
            continue
        match, template, transform = rule
        if template is None:
            continue
        paths = expand(match, template)
        if any(path is not None and (path not in expected or path in found) for path in paths):
            unexpected.append(name)
            continue
        try:
            arrays = [transform(part) for part in (np.split(array, len(paths)) if len(paths) > 1 else [array])]
        except (ValueError, IndexError):
            arrays = [array] * len(paths)
            failed.update(paths)
        found |= {path: part for path, part in zip(paths, arrays) if path is not None}
        names |= dict.fromkeys(paths, f'{name} {tuple(array.shape)}')
    zeros = [path for path in expected if re.fullmatch(_ZERO_IF_ABSENT.get(rules, ''), path)]
    if not any(path in found for path in zeros):
        found |= {path: np.zeros(expected[path], np.float32) for path in zeros}
        names |= {path: f'{path} {expected[path]}' for path in zeros}
    check_weights(found, expected, source, names=names, unexpected=unexpected, failed=failed)
    return found


def check_weights(
    found: Mapping[str, np.ndarray | jax.Array],
    expected: Mapping[str, tuple[int, ...]],
    source: str,
    *,
    names: Mapping[str, str] | None = None,
    unexpected: Sequence[str] = (),
    failed: Collection[str] = (),
    problems: Sequence[str] = (),
) -> None:
    """Checks that these arrays are what a module expects.

    Args:
      found: {dotted NNX path: array}.
      expected: {dotted NNX path: shape}.
      source: the origin of the arrays, for the error message.
      names: {path: name of the array in the message}; by default, its path and shape.
      unexpected: names of tensors without a path.
      failed: paths whose array could not be transformed, which counts as a wrong shape.
      problems: further problems to report.

    Raises:
      UserError: something does not fit, with all problems in one line.
    """
    names = {path: f'{path} {tuple(array.shape)}' for path, array in found.items()} if names is None else names
    missing = [path for path in expected if path not in found]
    unexpected = [*unexpected, *(path for path in found if path not in expected)]
    shared = [path for path in found if path in expected]
    misshapen = [
        f'{names[path]} for {path} {tuple(expected[path])}'
        for path in shared
        if path in failed or tuple(found[path].shape) != tuple(expected[path])
    ]
    # Integers would be quantized weights, which are meaningless without their scale.
    not_floating = [
        f'{names[path]}: {found[path].dtype}' for path in shared if not jnp.issubdtype(found[path].dtype, jnp.floating)
    ]
    kinds = (
        ('missing', missing),
        ('unexpected', unexpected),
        ('wrongly shaped', misshapen),
        ('not of floating type', not_floating),
    )
    problems = [*problems, *(_listed(kind, names) for kind, names in kinds if names)]
    if problems:
        raise UserError(
            f'{source} does not fit the backbone: {"; ".join(problems)}; choose the backbone that it was trained with'
        )


def match_rule(name: str, rules: tuple[Rule, ...]) -> tuple[re.Match, Paths | None, Transform] | None:
    """The first rule that matches a torch name, as (match, path, transform); None if there is none."""
    return next(((m, path, to) for pattern, path, to in rules if (m := re.fullmatch(pattern, name))), None)


def expand(match: re.Match, template: Paths) -> tuple[str | None, ...]:
    """The NNX paths of a match, None for a part of the tensor that is not needed."""
    if callable(template):
        return (template(match),)
    templates = (template,) if isinstance(template, str) else template
    return tuple(path and match.expand(path) for path in templates)


def _listed(kind: str, names: list[str], shown: int = 4) -> str:
    more = ', ...' if len(names) > shown else ''
    return f'{len(names)} {kind} ({", ".join(names[:shown])}{more})'
