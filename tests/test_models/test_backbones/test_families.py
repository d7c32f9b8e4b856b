# Copyright (c) greenmim authors. All rights reserved.
"""Layer depths and frozen modules of the backbones, and refused options."""
from functools import partial

import pytest
import torch
from mmengine.utils.dl_utils.parrots_wrapper import _BatchNorm

from greenmim.models import (GreenMIMCMT, GreenMIMConvNeXt, GreenMIMHiViT,
                             GreenMIMPCPVT, GreenMIMPVTv2, GreenMIMSVT,
                             GreenMIMSwinTransformer,
                             GreenMIMSwinTransformerV2,
                             GreenMIMVisionTransformer)
from tests.backbones import (FAMILIES, cmt, convnext, hivit, pvt_v2, swin,
                             twins, vit)
from tests.backbones.checks import grid_of, randomise
from tests.backbones.swin_v2 import SWIN_V2

CMT = partial(GreenMIMCMT, arch=cmt.arch(), img_size=64)
CONVNEXT = partial(GreenMIMConvNeXt, **convnext.CONVNEXT.micro)
HIVIT = partial(GreenMIMHiViT, **{**hivit.HIVIT.micro, 'img_size': 32})
PVT = partial(GreenMIMPVTv2, arch=pvt_v2.arch())
SVT = partial(GreenMIMSVT, arch=twins.svt_arch([7, 7, 7, 7]))
SWIN = partial(GreenMIMSwinTransformer, **swin.SWIN.micro)
SWIN2 = partial(GreenMIMSwinTransformerV2, **SWIN_V2.micro)
VIT = partial(GreenMIMVisionTransformer, **{**vit.VIT.micro, 'img_size': 32})


@pytest.mark.parametrize('build, expected', [
    (CMT, {
        'stem.6.weight': 0,
        'patch_embeds.0.norm.bias': 0,
        'position_biases.0.bias': 0,
        'stages.0.1.proj.weight': 2,
        'position_biases.1.bias': 2,
        'stages.3.0.mlp.conv1.0.weight': 5,
        'norm3.weight': 6,
    }),
    (HIVIT, {
        'pos_embed': 0,
        'patch_embed.proj.weight': 0,
        'blocks.0.norm2.weight': 1,
        'blocks.12.mlp.fc1.bias': 13,
    }),
    (PVT, {
        'patch_embeds.0.norm.bias': 0,
        'stages.0.1.ffn.dwconv.bias': 2,
        'norm0.weight': 2,
        'patch_embeds.1.projection.weight': 2,
        'stages.1.0.attn.sr.weight': 3,
        'norm3.bias': 6,
    }),
    (partial(SVT, norm_after_stage=True), {
        'patch_embeds.0.projection.weight': 0,
        'stages.0.0.norm1.weight': 1,
        'position_encodings.0.proj.weight': 1,
        'stages.0.1.norm1.weight': 2,
        'patch_embeds.1.norm.weight': 2,
        'norm_after_stage1.weight': 4,
        'stages.2.0.attn.qkv.weight': 5,
        'stages.3.1.ffn.layers.1.bias': 8,
        'norm_after_stage3.weight': 9,
    }),
    (SWIN2, {
        'patch_embed.norm.bias': 0,
        'stages.0.blocks.0.norm1.bias': 1,
        'stages.0.blocks.1.attn.w_msa.logit_scale': 2,
        'stages.1.downsample.norm.bias': 2,  # with the block before it
        'stages.1.blocks.0.ffn.layers.1.bias': 3,
        'norm3.bias': 9,
    }),
])  # yapf: disable
def test_layer_depths(build, expected):
    model = build()
    depths = {}
    for name, _ in model.named_parameters():
        depths[name], num_depths = model.get_layer_depth(name)
        assert model.get_layer_depth(f'backbone.{name}',
                                     'backbone.') == (depths[name], num_depths)
    assert {name: depths[name] for name in expected} == expected
    last = num_depths - 1
    assert {*depths.values(), last} == set(range(num_depths))
    assert model.get_layer_depth('head.fc.bias',
                                 'backbone.') == (last, num_depths)


@pytest.mark.parametrize('build, kwargs, message', [
    (CMT, dict(arch='large'), 'arch to be one of'),
    (CMT, dict(arch=dict(depths=[1])), 'an arch with the keys'),
    (CMT, dict(out_indices=(4, )), 'out_indices of 4 stages'),
    (CMT, dict(img_size=16), 'enlarge the image'),
    (HIVIT, dict(arch=dict(embed_dims=16, depths=[1, 1, 6], num_heads=2)),
     'more blocks than the 6'),
    (PVT, dict(arch='b9'), 'arch'),
    (PVT, dict(arch=dict(depths=[1])), 'keys'),
    (PVT, dict(out_indices=(4, )), 'out_indices'),
    (SVT, dict(attn_backend='none'), 'attn_backend'),
    (SWIN, dict(window_size=(7, 7)), 'window'),
    (SWIN, dict(window_size=(7, 7, 7, 7, 7)), 'window'),
    (SWIN2, dict(attn_backend='none'), 'attn_backend'),
    (VIT, dict(unit_size=12), 'multiple of the patch size 8'),
])  # yapf: disable
def test_bad_arguments(build, kwargs, message):
    with pytest.raises(ValueError, match=message):
        build(**kwargs)


@pytest.mark.parametrize('family', FAMILIES, ids=str)
@pytest.mark.parametrize('kwargs, error', [
    (dict(arch='unknown'), (AssertionError, ValueError)),
    (dict(windw_size=7), TypeError),
])
def test_unknown_names_are_refused(family, kwargs, error):
    """By the dense parent, where it has the argument."""
    name, = kwargs
    with pytest.raises(error, match=f'(?i){name}'):
        family.green(**{**family.micro, **kwargs})


@pytest.mark.parametrize('build, kwargs, size, message', [
    (CMT, dict(arch=cmt.arch(sr_ratios=[8, 8, 2, 1]), img_size=128), (64, 64),
     'got 8'),
    (CMT, dict(out_indices=(0, )), (64, 64), 'the last stage in out_indices'),
    (CONVNEXT, dict(out_indices=[0, 1]), (64, 64), 'add 3'),
    (CONVNEXT, dict(norm_cfg=dict(type='BN'), linear_pw_conv=False), (64, 64),
     'LN2d'),
    (HIVIT, dict(kernel_size=4, pad_size=1), (32, 32),
     'kernel equals its stride'),
    (HIVIT, dict(img_size=(32, 64)), (32, 64), 'square'),
    (HIVIT, dict(rpe=True), (32, 64), 'at most 4 x 4 units.*rpe'),
    (GreenMIMPCPVT, dict(arch=twins.arch(sr_ratios=[8, 4, 2, 2])), (64, 64),
     'divides the 1 tokens'),
    (PVT, dict(arch=pvt_v2.arch(sr_ratios=[8, 8, 1, 1])), (64, 64),
     'divides the 4 tokens'),
    (SVT, dict(arch=twins.svt_arch([7, 7, 7, 7], patch_sizes=[4, 3, 2, 2])),
     (64, 64), 'kernel equals its stride'),
    (SWIN, dict(stage_cfgs=dict(downsample_cfg=dict(kernel_size=3, stride=2))),
     (128, 128), 'merging .* got Unfold'),
    (SWIN, dict(patch_cfg=dict(kernel_size=7, stride=4, padding=3)),
     (128, 128), 'its stride .* got Conv2d'),
    (SWIN, dict(out_indices=(0, )), (128, 128), 'out_indices'),
    (SWIN2, dict(out_indices=(0, )), (64, 64), 'out_indices'),
    (VIT, dict(out_indices=[0]), (32, 32), 'last layer in out_indices'),
    (VIT, dict(patch_cfg=dict(kernel_size=12, padding=2)), (32, 32),
     'kernel equals its stride'),
])  # yapf: disable
def test_what_has_no_masked_forward(build, kwargs, size, message):
    model = build(**kwargs)
    images = torch.randn(2, 3, *size)
    if build in (CMT, GreenMIMPCPVT) or message == 'add 3':
        # These options work densely.
        assert len(model(images)) == len(model.out_indices)
    mask = torch.zeros(1, *grid_of(model, size), dtype=torch.bool)
    with pytest.raises(ValueError, match=message):
        model(images, mask)


@pytest.mark.parametrize('frozen_stages', [1, 3])
@pytest.mark.parametrize(
    'family', [f for f in FAMILIES if f is not vit.VIT], ids=str)
def test_frozen_modules_stay_in_evaluation_mode(family, frozen_stages):
    """Except for those of MMPretrain's ViT, and norms of outputs."""
    model = family.green(**{
        **family.micro,
        **family.all_outputs, 'frozen_stages': frozen_stages
    })
    assert model.train() is model and model.training
    for name, module in list(model.named_modules())[1:]:
        frozen = [
            family.is_frozen(f'{name}.{param}', frozen_stages)
            for param, _ in module.named_parameters(recurse=False)
        ]
        if frozen and not name.startswith('norm'):
            assert module.training is not all(frozen), name


def test_dropout_of_a_frozen_hivit_stays_in_evaluation_mode():
    model = HIVIT(frozen_stages=2, drop_rate=0.1, ape=False)
    assert not model.train().pos_drop.training


def test_models_of_hivit_do_not_share_their_outputs():
    """The parent's default list is one for all models."""
    model = GreenMIMHiViT('tiny')
    HIVIT()
    assert model.out_indices == [9]


@pytest.mark.parametrize('kwargs', [dict(), dict(rpe=True, ape=False)])
@torch.no_grad()
def test_maps_of_all_stages_of_hivit(kwargs):
    """The last is the parent's; the others hold what its blocks return."""
    torch.manual_seed(0)
    kwargs = dict(kwargs, img_size=64)
    parent = dense(HIVIT)(**{**HIVIT.keywords, **kwargs, 'out_indices': [0]})
    for parameter in parent.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    ends = HIVIT(**kwargs).stage_ends
    model = HIVIT(**kwargs, out_indices=ends)
    model.load_state_dict(parent.state_dict())
    seen = {}
    for i in ends[:-1]:
        parent.blocks[i].register_forward_hook(
            lambda module, args, out, i=i: seen.update({i: out}))
    images = torch.randn(2, 3, 64, 48 if model.ape else 64)
    *early, last = model.eval()(images)
    parent.eval()  # returns nothing
    assert torch.equal(last, parent(images)[-1]) and last.std() > 0.1
    patch = model.patch_size
    assert [images.shape[2] // m.shape[2]
            for m in early] == [patch // 4, patch // 2]
    for i, found in zip(ends, early):
        side, columns = seen[i].shape[2], images.shape[3] // patch
        for row in range(found.shape[2]):
            for column in range(found.shape[3]):
                unit = row // side * columns + column // side
                token = seen[i][:, unit, row % side, column % side]
                assert torch.equal(found[:, :, row, column], token)


def dense(build):
    """The parent with the same arguments."""
    parent, *_ = [
        base for base in build.func.__mro__
        if base.__module__.startswith('mmpretrain')
    ]
    return partial(parent, **build.keywords)


@pytest.mark.parametrize('build', [CONVNEXT, SWIN, VIT])
def test_layer_depths_are_those_of_the_parent(build):
    """Of those whose parent has depths that count its layers."""
    model = build()
    parent = dense(build)()
    names = [name for name, _ in model.named_parameters()]
    for name in [f'backbone.{name}' for name in names] + ['head.fc.bias']:
        depth = model.get_layer_depth(name, 'backbone.')
        assert depth == parent.get_layer_depth(name, 'backbone.')


@pytest.mark.parametrize('build', [SWIN, VIT])
def test_positions_of_another_image_size_are_resized(build):
    """As the parent resizes them."""
    absolute = dict() if build is VIT else dict(use_abs_pos_embed=True)
    small = randomise(build(img_size=64, **absolute))
    large = build(img_size=96, **absolute)
    parent = dense(build)(img_size=96, **absolute)
    for model in (large, parent):
        model.load_state_dict(small.state_dict())
    state = large.state_dict()
    for name, expected in parent.state_dict().items():
        assert torch.equal(state[name], expected), name
    name, = [name for name in state if 'pos_embed' in name]
    assert state[name].shape[1] > small.state_dict()[name].shape[1]


@pytest.mark.parametrize('family', FAMILIES, ids=str)
def test_weights_are_initialised_as_those_of_the_parent(family):
    states = []
    for build in (family.green, family.parent):
        torch.manual_seed(0)
        model = build(**family.micro)
        model.init_weights()
        states.append(dict(model.named_parameters()))
    for name, expected in states[1].items():
        assert torch.equal(states[0][name], expected), name


@pytest.mark.parametrize('norm_eval', [True, False])
@pytest.mark.parametrize('build', [SWIN, SWIN2])
def test_norm_eval(build, norm_eval):
    norm_cfg = dict(type='BN')
    model = build(norm_eval=norm_eval, norm_cfg=norm_cfg).train()
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm)]
    assert norms and all(norm.training != norm_eval for norm in norms)
