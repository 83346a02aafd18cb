"""Official weights in our names. Pure functions from state dict to state dict.

Prototypes keep their values: official checkpoints hold them as the last optimizer step left them, and
``normalize_at_eval`` of :class:`mmkd_ext.heads.CosineHead` decides whether evaluation normalises them.
"""

import re
from collections import defaultdict
from collections.abc import Mapping

import torch
from torch import Tensor

StateDict = Mapping[str, Tensor]

_HEADS = {'head_unlab': 'novel_head', 'head_unlab_over': 'overcluster_head'}
_HEAD_KEY = re.compile(r'(head_unlab|head_unlab_over)\.(projectors|prototypes)\.(\d+)\.(?:mlp|prototypes)\.(.+)')

# Rules of mmpretrain's VisionTransformer, tried in order.
_VIT_RULES = [
    (re.compile(r'(cls_token|pos_embed)'), r'\1'),
    (re.compile(r'patch_embed\.proj\.(.+)'), r'patch_embed.projection.\1'),
    (re.compile(r'blocks\.(\d+)\.norm([12])\.(.+)'), r'layers.\1.ln\2.\3'),
    (re.compile(r'blocks\.(\d+)\.attn\.(qkv|proj)\.(.+)'), r'layers.\1.attn.\2.\3'),
    (re.compile(r'blocks\.(\d+)\.mlp\.fc1\.(.+)'), r'layers.\1.ffn.layers.0.0.\2'),
    (re.compile(r'blocks\.(\d+)\.mlp\.fc2\.(.+)'), r'layers.\1.ffn.layers.1.\2'),
    (re.compile(r'norm\.(.+)'), r'ln1.\1'),
]


def convert_official_crkd(state_dict: StateDict) -> dict[str, Tensor]:
    """Rename the weights of the official UNO and Cr-KD code for :class:`mmkd_ext.models.NCDClassifier`.

    The weights of separate heads are stacked. A convolutional encoder becomes mmpretrain's ``ResNet_CIFAR`` (or
    ``ResNet``), a ViT its ``VisionTransformer``. Cr-KD's checkpoints hold no per-head loss, so the best head is then
    unknown (NaN objective, head 0); UNO's ``loss_per_head`` is kept.

    Args:
        state_dict: ``encoder.*``, ``head_lab.*``, and in the second stage ``head_unlab.*`` and, for UNO v2,
            ``head_unlab_over.*``; prefixes ``model.`` and ``module.`` are dropped.

    Returns:
        Weights that load strictly into the model of the same sizes.

    Raises:
        KeyError: A name is none of these.
    """
    state_dict = {_strip(key, 'module.', 'model.'): value for key, value in state_dict.items()}
    loss_per_head = state_dict.pop('loss_per_head', None)
    encoder: dict[str, Tensor] = {}
    converted: dict[str, Tensor] = {}
    per_head: dict[str, dict[int, Tensor]] = defaultdict(dict)
    for key, value in state_dict.items():
        if key.startswith('encoder.'):
            encoder[key.removeprefix('encoder.')] = value
        elif key == 'head_lab.prototypes.weight':
            converted['known_head.prototypes.weight'] = value
        elif match := _HEAD_KEY.fullmatch(key):
            head, part, index, name = match.groups()
            per_head[f'{_HEADS[head]}.{_head_name(part, name)}'][int(index)] = value
        else:
            raise KeyError(
                f'convert_official_crkd: expected names of the official UNO or Cr-KD code but got {key!r}; '
                'pass the state dict of its network'
            )
    if 'cls_token' in encoder:
        encoder = convert_dino_vit(encoder)
    converted |= {f'backbone.{key}': value for key, value in encoder.items()}
    converted |= {key: _merge(key, values) for key, values in per_head.items()}
    return converted | _objectives(converted, loss_per_head)


def convert_dino_vit(state_dict: StateDict) -> dict[str, Tensor]:
    """Rename the weights of a DINO or timm vision transformer for mmpretrain's ``VisionTransformer``.

    Args:
        state_dict: ``cls_token``, ``pos_embed``, ``patch_embed.*``, ``blocks.*`` and ``norm.*``; prefixes ``module.``
            and ``backbone.`` and everything under ``head.`` are dropped, so that DINO's full checkpoint can be given
            by its entry ``teacher``.

    Returns:
        Weights that load strictly into ``VisionTransformer(out_type='cls_token', final_norm=True)``.

    Raises:
        KeyError: A name is none of these.
    """
    converted = {}
    for official_key, value in state_dict.items():
        key = _strip(official_key, 'module.', 'backbone.')
        if key.startswith('head.'):
            continue
        rule = next(((pattern, new) for pattern, new in _VIT_RULES if pattern.fullmatch(key)), None)
        if rule is None:
            raise KeyError(
                f'convert_dino_vit: expected names of a DINO or timm vision transformer but got {official_key!r}; '
                'pass the state dict of the network itself'
            )
        converted[rule[0].sub(rule[1], key)] = value
    return converted


def _strip(key: str, *prefixes: str) -> str:
    for prefix in prefixes:
        key = key.removeprefix(prefix)
    return key


def _head_name(part: str, name: str) -> str:
    """Name in ``NovelHead`` of an entry of one official head, whose MLP repeats [linear, norm, ReLU]."""
    if part == 'prototypes':
        return f'prototypes.{name}'
    position, entry = name.split('.')
    layer, kind = divmod(int(position), 3)
    return f'{"layers" if kind == 0 else "norms"}.{layer}.{entry}'


def _merge(key: str, value_of_head: Mapping[int, Tensor]) -> Tensor:
    values = [value_of_head[index] for index in sorted(value_of_head)]
    if key.endswith('num_batches_tracked'):
        return values[0]
    return torch.cat(values) if '.norms.' in key else torch.stack(values)


def _objectives(converted: StateDict, loss_per_head: Tensor | None) -> dict[str, Tensor]:
    objectives = {}
    for head in _HEADS.values():
        prototypes = converted.get(f'{head}.prototypes.weight')
        if prototypes is not None:
            known = loss_per_head if head == 'novel_head' else None
            objectives[f'{head}.objective_sum'] = prototypes.new_zeros(len(prototypes)) if known is None else known
            objectives[f'{head}.objective_count'] = prototypes.new_tensor(float(known is not None))
    return objectives
