# Copyright (c) greenmim authors. All rights reserved.
"""The families of backbones in timm and transformers, and what they return.

``python -m tests.other_libraries`` prints the table of the page "Use your
backbone", all cells of which are tested.
"""
from typing import Any, Callable, Dict, List, Tuple

import torch
from torch import Tensor, nn

from greenmim.weights import SOURCES, TARGETS
from greenmim.weights.convert import FAMILIES
from tests.micro_checkpoint import BACKBONES, FAMILY_OF, randomise

# The libraries that have no such model.
ABSENT = {
    'cmt': ('timm', 'transformers'),
    'hivit': ('timm', 'transformers'),
    'twins_pcpvt': ('transformers', ),
    'twins_svt': ('transformers', ),
    'beit': ('transformers', ),
}
NAMES = {
    'swin': 'Swin',
    'swin_v2': 'Swin V2',
    'vit': 'ViT',
    'beit': 'ViT with relative positions (BEiT, SimMIM)',
    'pvt_v2': 'PVT v2',
    'cmt': 'CMT',
    'convnext': 'ConvNeXt',
    'convnext_v2': 'ConvNeXt V2',
    'twins_pcpvt': 'Twins-PCPVT',
    'twins_svt': 'Twins-SVT',
    'hivit': 'HiViT',
}


def has(library: str, name: str) -> bool:
    return library not in ABSENT.get(name, ())


def as_map(tokens: Tensor) -> Tensor:
    """Tokens of a square, with or without a class token, as a map."""
    side = int(tokens.shape[1]**0.5)
    tokens = tokens[:, tokens.shape[1] - side**2:]
    return tokens.transpose(1, 2).unflatten(2, (side, side))


def features_in_timm(name: str, model: nn.Module, x: Tensor) -> Tensor:
    """The normed last map of a model of timm."""
    found = model.forward_features(x)
    if name.startswith('convnext'):
        return model.head.norm(found)
    if name.startswith('swin'):
        return found.permute(0, 3, 1, 2)
    return found if found.ndim == 4 else as_map(found)


def features_in_transformers(name: str, model: nn.Module, x: Tensor) -> Tensor:
    """The normed last map of a model of transformers."""
    model = getattr(model, model.base_model_prefix, model)
    found = model(x).last_hidden_state
    if name.startswith('convnext'):
        return model.layernorm(found.movedim(1, -1)).movedim(-1, 1)
    return found if found.ndim == 4 else as_map(found)


def _arch(name: str) -> Dict[str, Any]:
    return dict(BACKBONES[name]['arch'])


def timm_model(name: str) -> Tuple[nn.Module, List[str]]:
    """A random model of timm, and the options that import it."""
    from timm import models
    arch: Any = _arch(name)
    options: List[str] = []
    eps: Any = 1e-6
    swin = dict(
        img_size=64,
        embed_dim=8,
        depths=(2, 1, 1, 1),
        num_heads=(1, 2, 4, 4),
        window_size=(4, 4, 4, 2))
    vit = dict(
        img_size=32,
        embed_dim=24,
        depth=2,
        num_heads=3,
        mlp_ratio=2.,
        num_classes=5)
    twins = dict(
        img_size=64,
        embed_dims=arch.get('embed_dims'),
        depths=arch.get('depths'),
        num_heads=(1, 2, 3, 4),
        mlp_ratios=(4, 4, 2, 2))
    if name == 'swin':
        kind, arguments = models.swin_transformer.SwinTransformer, swin
    elif name == 'swin_v2':
        kind, arguments = models.swin_transformer_v2.SwinTransformerV2, swin
        options = ['--window-size', '4', '4', '4', '2']
    elif name == 'vit':
        kind, arguments = models.vision_transformer.VisionTransformer, vit
        options = ['--num-heads', '3']
    elif name == 'beit':
        kind = models.beit.Beit
        arguments = dict(
            vit,
            use_abs_pos_emb=False,
            use_shared_rel_pos_bias=True,
            global_pool='token',
            init_values=0.1)
    elif name == 'pvt_v2':
        kind, arguments = models.pvt_v2.PyramidVisionTransformerV2, arch
        eps = None  # those of its authors
    elif name.startswith('convnext'):
        kind = models.convnext.ConvNeXt
        second = name == 'convnext_v2'
        arguments = dict(
            depths=arch['depths'],
            dims=arch['channels'],
            use_grn=second,
            ls_init_value=None if second else 1e-6)
    else:
        kind, arguments = models.twins.Twins, twins
        options = ['--num-heads', '1', '2', '3', '4']
        if name == 'twins_svt':
            arguments = dict(twins, wss=(4, 4, 4, 2))
            options += ['--window-size', '4', '4', '4', '2']
    torch.manual_seed(0)
    return _random(kind(**arguments), eps), options


def transformers_model(name: str) -> nn.Module:
    """A random model of transformers."""
    import transformers as hf
    arch: Any = _arch(name)
    size = dict(image_size=64)
    if name.startswith('swin'):
        kind = 'Swin' if name == 'swin' else 'Swinv2'
        config = getattr(hf, f'{kind}Config')(
            **size,
            embed_dim=8,
            depths=[2, 1, 1, 1],
            num_heads=[1, 2, 4, 4],
            # That of the last map is 2.
            window_size=4 if name == 'swin_v2' else 2,
            encoder_stride=32)
        model = getattr(hf, f'{kind}ForMaskedImageModeling')(config)
    elif name == 'vit':
        config = hf.ViTConfig(
            image_size=32,
            hidden_size=24,
            num_hidden_layers=2,
            num_attention_heads=3,
            intermediate_size=48,
            layer_norm_eps=1e-6)
        model = hf.ViTForMaskedImageModeling(config)
    elif name == 'pvt_v2':
        config = hf.PvtV2Config(
            **size,
            hidden_sizes=arch['embed_dims'],
            num_attention_heads=arch['num_heads'],
            **{k: arch[k]
               for k in ('depths', 'mlp_ratios', 'sr_ratios')})
        model = hf.PvtV2ForImageClassification(config)
    else:
        kind = 'ConvNext' + 'V2' * (name == 'convnext_v2')
        config = getattr(hf, f'{kind}Config')(
            **size,
            depths=arch['depths'],
            hidden_sizes=arch['channels'],
            layer_norm_eps=1e-6)
        model = getattr(hf, f'{kind}Model')(config)
    return _random(model, None)


def _random(model: nn.Module, eps: Any) -> nn.Module:
    randomise(model)
    for module in model.modules():
        if eps and isinstance(module, nn.LayerNorm):
            module.eps = eps
    return model


FEATURES: Dict[str, Callable[[str, nn.Module, Tensor], Tensor]] = dict(
    timm=features_in_timm, transformers=features_in_transformers)
# Who wrote files in the names of their own code.
AUTHORS = sorted(SOURCES.keys() - TARGETS.keys())


def table() -> str:
    """The table of all families and libraries, in Markdown."""
    rows = ['| backbone | ' + ' | '.join(TARGETS) + ' | authors |']
    rows.append('|---' * (len(TARGETS) + 2) + '|')
    families = {family.name: family for family in FAMILIES}
    for name in sorted(BACKBONES, key=lambda name: NAMES[name].lower()):
        cells = ['yes' if has(library, name) else '-' for library in TARGETS]
        layouts = families[FAMILY_OF.get(name, name)].layouts
        authors = [f'`{name}`' for name in AUTHORS if name in layouts]
        rows.append(f'| {NAMES[name]} | {" | ".join(cells)} | '
                    f'{", ".join(authors) or "-"} |')
    return '\n'.join(rows)


if __name__ == '__main__':
    print(table())
