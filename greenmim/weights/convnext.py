# Copyright (c) greenmim authors. All rights reserved.
"""ConvNeXt, V1 and V2: layouts and settings."""
import re
from typing import Any, Dict, Optional, Sequence, Tuple

from torch import Tensor

from greenmim.models import GreenMIMConvNeXt
from .family import Family, norm_config, shape_of, stage_depths
from .layouts import Layout, Renames, Tensors

_TIMM: Renames = (
    ('stem.', 'downsample_layers.0.'),
    ('stages.{i}.downsample.', 'downsample_layers.{i}.'),
    ('stages.{i}.blocks.{j}.conv_dw.', 'stages.{i}.{j}.depthwise_conv.'),
    ('stages.{i}.blocks.{j}.mlp.fc', 'stages.{i}.{j}.pointwise_conv'),
    ('stages.{i}.blocks.{j}.mlp.grn.weight', 'stages.{i}.{j}.grn.gamma'),
    ('stages.{i}.blocks.{j}.mlp.grn.bias', 'stages.{i}.{j}.grn.beta'),
    ('stages.{i}.blocks.{j}.norm.', 'stages.{i}.{j}.norm.'),
    ('stages.{i}.blocks.{j}.gamma', 'stages.{i}.{j}.gamma'),
    ('head.norm.', 'norm{last}.'),
)
_AUTHORS: Renames = (
    ('downsample_layers.', 'downsample_layers.'),
    ('stages.{i}.{j}.dwconv.', 'stages.{i}.{j}.depthwise_conv.'),
    ('stages.{i}.{j}.pwconv', 'stages.{i}.{j}.pointwise_conv'),
    ('stages.{i}.{j}.', 'stages.{i}.{j}.'),
    ('norm.', 'norm{last}.'),
)
_SPARK: Renames = tuple((f'sparse_encoder.sp_cnn.{theirs}', ours)
                        for theirs, ours in _AUTHORS) + _AUTHORS
_HF_BLOCK = 'encoder.stages.{i}.layers.{j}.'
_TRANSFORMERS: Renames = (
    ('embeddings.patch_embeddings.', 'downsample_layers.0.0.'),
    ('embeddings.layernorm.', 'downsample_layers.0.1.'),
    ('encoder.stages.{i}.downsampling_layer.', 'downsample_layers.{i}.'),
    *((_HF_BLOCK + theirs, 'stages.{i}.{j}.' + ours) for theirs, ours in (
        ('dwconv.', 'depthwise_conv.'),
        ('layernorm.', 'norm.'),
        ('pwconv', 'pointwise_conv'),
        ('grn.weight', 'grn.gamma'),
        ('grn.bias', 'grn.beta'),
        ('layer_scale_parameter', 'gamma'),
    )),
    ('layernorm.', 'norm{last}.'),
)  # yapf: disable
# Names that MinkowskiEngine's layers add to those of the dense model.
_INNER = re.compile(r'\.(ln|linear)\.(weight|bias)$')
_POINTWISE = re.compile(r'.*\.pointwise_conv\d\.weight$')


class ConvNeXt(Family):
    """ConvNeXt, both versions."""
    name = 'convnext'
    types = ('mmpretrain.ConvNeXt', 'greenmim.GreenMIMConvNeXt')
    cls = GreenMIMConvNeXt
    layouts = {
        'openmmlab': Layout(norm_eps=1e-6),
        'mmdet': Layout(norm_eps=1e-6),
        'timm': Layout(_TIMM, outside=r'^head\.norm\.'),
        'transformers': Layout(_TRANSFORMERS, norm_eps=1e-6),
        'convnext': Layout(_AUTHORS, norm_eps=1e-6),
        'fcmae': Layout(_AUTHORS, norm_eps=1e-6),
        'spark': Layout(_SPARK, norm_eps=1e-6),
    }
    pattern = r'^stages\.\d+\.\d+\.depthwise_conv\.'
    # Decoders, and what SparK fills in for masked tokens.
    ignored = (r'^(head|fc|mask_tokens?|proj|decoder|pred|dense_decoder|'
               r'densify_\w+|imn_\w|norm_black|sparse_encoder\.sp_cnn\.fc)\b')
    # Pre-training may go without the last norm.
    addable = r'^norm\d+\.'
    hints = ('gap_before_final_norm', )

    def infer_settings(self,
                       tensors: Tensors,
                       norm_eps: Optional[float] = None,
                       gap_before_final_norm: bool = True,
                       **hints: Any) -> Dict[str, Any]:
        """The last norm follows the average of the map unless a hint says
        otherwise, as in the authors' classifier."""
        depths = stage_depths(tensors, r'stages\.(\d+)\.(\d+)\.')
        channels, in_channels, patch_size, _ = shape_of(
            tensors, 'downsample_layers.0.0.weight', 4)
        widths = [channels] + [
            shape_of(tensors, f'downsample_layers.{i}.1.weight', 4)[0]
            for i in range(1, len(depths))
        ]
        shape_of(tensors, 'stages.0.0.depthwise_conv.weight', 4)
        last = len(depths) - 1
        wide = tensors.get('stages.0.0.pointwise_conv1.weight')
        return dict(
            arch=dict(depths=depths, channels=widths),
            in_channels=in_channels,
            stem_patch_size=patch_size,
            norm_cfg=norm_config(norm_eps or 1e-6, 'LN2d'),
            linear_pw_conv=wide is None or wide.ndim == 2,
            use_grn='stages.0.0.grn.gamma' in tensors,
            layer_scale_init_value=1e-6
            if 'stages.0.0.gamma' in tensors else 0.,
            out_indices=[
                i for i in range(last + 1)
                if i == last or f'norm{i}.weight' in tensors
            ],
            gap_before_final_norm=gap_before_final_norm)

    def hints_from(self, model: Any) -> Dict[str, Any]:
        return dict(gap_before_final_norm=model.gap_before_final_norm)

    def from_layout(self,
                    tensors: Tensors,
                    name: str,
                    older: bool = True) -> Tuple[Tensors, Tuple[str, ...]]:
        if name in ('convnext', 'fcmae', 'spark', 'transformers'):
            tensors = {
                _INNER.sub(r'.\2', key.replace('.kernel', '.weight')):
                _dense(key, tensor)
                for key, tensor in tensors.items()
            }  # yapf: disable
        return super().from_layout(tensors, name, older)

    def to_layout(self, tensors: Tensors,
                  name: str) -> Tuple[Tensors, Tuple[str, ...]]:
        if name == 'transformers':
            tensors = {
                key: tensor[None, None, None] if '.grn.' in key else
                tensor.flatten(1) if _POINTWISE.match(key) else tensor
                for key, tensor in tensors.items()
            }  # yapf: disable
        return super().to_layout(tensors, name)

    def adapt(self, settings: Dict[str, Any], windows: Sequence[int],
              maps: bool) -> Dict[str, Any]:
        settings = super().adapt(settings, windows, maps)
        return {**settings, 'gap_before_final_norm': False} if maps else (
            settings)  # yapf: disable

    def timm_model(self, settings: Dict[str, Any], img_size: Any,
                   windows: Sequence[int]) -> Tuple[str, Dict[str, Any]]:
        return 'convnext.ConvNeXt', dict(
            in_chans=settings['in_channels'],
            depths=settings['arch']['depths'],
            dims=settings['arch']['channels'],
            patch_size=settings['stem_patch_size'],
            conv_mlp=not settings['linear_pw_conv'],
            use_grn=settings['use_grn'],
            ls_init_value=settings['layer_scale_init_value'] or None)

    def transformers_model(self, settings: Dict[str, Any], img_size: Any,
                           norm_eps: Optional[float],
                           windows: Sequence[int]) -> Dict[str, Any]:
        arch, scale = settings['arch'], settings['layer_scale_init_value']
        second = settings['use_grn']
        if second == bool(scale):
            raise ValueError(
                'expected either response norms (V2) or layer scales (V1), '
                'as transformers has them, got a ConvNeXt with '
                f'{"both" if second else "neither"}; export it with --to timm')
        kind = 'ConvNextV2' if second else 'ConvNext'
        return dict(
            architectures=[f'{kind}Model'],
            model_type=kind.lower(),
            image_size=img_size,
            patch_size=settings['stem_patch_size'],
            num_channels=settings['in_channels'],
            num_stages=len(arch['depths']),
            hidden_sizes=arch['channels'],
            depths=arch['depths'],
            layer_norm_eps=norm_eps or 1e-6)


def _dense(name: str, tensor: Tensor) -> Tensor:
    """A tensor of the sparse convolutions of FCMAE, or V2's, as a dense one.

    A sparse kernel is (places, [in, ] out), with the row of a place running
    fastest; biases and the vectors of the response norm have dimensions of
    one before the channels.
    """
    if name.endswith('.kernel'):
        if tensor.ndim == 2:  # depthwise
            tensor = tensor[:, None]
        side = round(len(tensor)**0.5)
        return tensor.permute(2, 1, 0).unflatten(2, (side, side)).mT
    if tensor.ndim > 1 and re.search(r'\.grn\.\w+$|\.bias$', name):
        return tensor.flatten()
    return tensor
