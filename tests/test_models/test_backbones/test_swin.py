# Copyright (c) greenmim authors. All rights reserved.
"""What users of MMPretrain's Swin Transformer rely on, for ours."""
import copy
import logging
import math
from functools import partial

import pytest
import torch
from mmcv.cnn.bricks.transformer import PatchMerging
from mmengine.logging import MMLogger
from mmengine.runner import load_checkpoint, save_checkpoint
from mmpretrain.models import SwinTransformer
from mmpretrain.models.utils import WindowMSAV2
from mmpretrain.registry import MODELS
from torch import nn

from greenmim.models import GreenMIM, GreenMIMSwinTransformer
from greenmim.models.backbones.swin import bias_table_window, resize_bias_table
from greenmim.models.masking import random_mask
from greenmim.models.visible.tokens import visible_patch_merging
from greenmim.ops import StageWindows, VisibleLayout, Window
from tests.backbones.checks import randomise
from tests.micro import SWIN_ARCH

MICRO = dict(arch=SWIN_ARCH, window_size=4, img_size=128)


def build(**kwargs):
    return GreenMIMSwinTransformer(**{**MICRO, **kwargs})


def images(size=128):
    return torch.randn(1, 3, size, size)


@pytest.mark.parametrize('name', ['t', 'Tiny', 'small', 'B', 'large'])
def test_names(name, monkeypatch):
    """Loads strictly into the parent and back (meta tensors)."""
    # the parent reads drop path rates from a tensor
    monkeypatch.setattr(torch, 'linspace',
                        partial(torch.linspace, device='cpu'))
    with torch.device('meta'):
        model = GreenMIMSwinTransformer(arch=name)
        parent = SwinTransformer(arch=name)
    assert model.depths == parent.depths
    assert list(model.state_dict()) == list(parent.state_dict())
    assert [name for name, _ in model.named_parameters()
            ] == [name for name, _ in parent.named_parameters()]
    parent.load_state_dict(model.state_dict(), strict=True)
    model.load_state_dict(parent.state_dict(), strict=True)


def test_a_window_for_each_stage_beside_stage_cfgs():
    drop = dict(block_cfgs=dict(attn_cfgs=dict(proj_drop=0.25)))
    model = build(window_size=(8, 4, 2, 1), stage_cfgs=drop)
    assert model.stages[1].blocks[0].attn.window_size == 4
    assert model.stages[1].blocks[0].attn.w_msa.proj_drop.p == 0.25
    assert drop == dict(block_cfgs=dict(attn_cfgs=dict(proj_drop=0.25)))


def test_old_checkpoints(tmp_path):
    """Version 1 names the last norm ``norm`` and stores masks."""
    model = randomise(build(use_abs_pos_embed=True))
    new = str(tmp_path / 'v3.pth')
    save_checkpoint(model.state_dict(), new)
    old_model = copy.deepcopy(model)
    old_model.norm = old_model.norm3
    del old_model.norm3
    old_model.stages[2].blocks[1].attn.attn_mask = nn.Parameter(
        torch.zeros(4, 16, 16))
    old_model._version = 1
    old = str(tmp_path / 'v1.pth')
    save_checkpoint(old_model.state_dict(), old)
    for path in (new, old):
        loaded = build(use_abs_pos_embed=True)
        load_checkpoint(loaded, path, strict=True)
        for name, value in model.state_dict().items():
            assert torch.equal(loaded.state_dict()[name], value), name


def test_a_norm_that_is_not_old_stays():
    """The renaming touches neither a neck beside us nor new files."""

    class Both(nn.Module):

        def __init__(self):
            super().__init__()
            self.backbone = build()
            self.norm = nn.LayerNorm(3)
            self.attn_mask = nn.Parameter(torch.randn(3))

    source, target = Both(), Both()
    randomise(source)
    for state in (source.state_dict(), dict(source.state_dict())):
        target.load_state_dict(state, strict=True)
        for name, value in source.state_dict().items():
            assert torch.equal(target.state_dict()[name], value), name


def test_tables_of_another_window_are_resized(tmp_path, monkeypatch):
    """Also through MMEngine, strictly, and the index buffers fit."""
    loaded = build()
    for param in loaded.parameters():
        nn.init.normal_(param)
    path = str(tmp_path / 'a.pth')
    torch.save(loaded.state_dict(), path)
    model = build(window_size=7)
    lines = []
    monkeypatch.setattr('greenmim.models.backbones.swin.print_log',
                        lambda line, logger: lines.append(line))
    load_checkpoint(model, path, strict=True)
    state = model.state_dict()
    fresh = build(window_size=7).state_dict()
    tables = 0
    for name, tensor in loaded.state_dict().items():
        if name.endswith('relative_position_bias_table'):
            tensor, tables = resize_bias_table(tensor, 7), tables + 1
        elif name.endswith('relative_position_index'):
            tensor = fresh[name]
        assert torch.equal(state[name], tensor), name
    assert f'Resized {tables} relative position bias tables' in lines[0]
    assert 'from window 4 to 7' in lines[0]


def test_another_number_of_heads_is_refused():
    heads = dict(MICRO['arch'], num_heads=[2, 2, 2, 4])
    model = build(arch=heads, window_size=7)
    state = build().state_dict()
    with pytest.raises(
            ValueError,
            match='window 7, 2 heads, got window 4, 1 heads; build'):
        model.load_state_dict(state)


def test_a_checkpoint_of_a_run_initialises_the_parent(tmp_path):
    """Every tensor of the plain backbone comes from the file."""
    torch.manual_seed(0)
    pretrained = GreenMIM(
        backbone=dict(type='greenmim.GreenMIMSwinTransformer', **MICRO),
        neck=dict(
            type='greenmim.GreenMIMNeck',
            in_channels=64,
            embed_dims=16,
            depth=1,
            num_heads=2),
        head=dict(type='greenmim.GreenMIMHead'))
    randomise(pretrained)
    path = str(tmp_path / 'epoch_1.pth')
    save_checkpoint(
        dict(state_dict=pretrained.state_dict(), meta=dict(epoch=1)), path)

    logger = MMLogger.get_instance('test_pretrained')
    records = []
    handler = logging.Handler()
    handler.emit = lambda record: records.append(record.getMessage())
    current = MMLogger.get_current_instance()
    for log in (logger, current):
        log.addHandler(handler)
    try:
        model = MODELS.build(
            dict(
                type='SwinTransformer',
                init_cfg=dict(
                    type='Pretrained', checkpoint=path, prefix='backbone.'),
                **MICRO))
        model.init_weights()
    finally:
        for log in (logger, current):
            log.removeHandler(handler)
    assert type(model) is SwinTransformer
    text = '\n'.join(records)
    assert path in text  # the load was logged, and nothing but it
    assert 'missing' not in text and 'unexpected' not in text
    for name, value in pretrained.backbone.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name
    x = images()
    assert torch.equal(model.eval() or model(x)[0],
                       pretrained.backbone.eval()(x)[0])


def test_a_window_larger_than_the_map():
    """The dense forward refuses it or pads the map, as the parent does."""
    model = build(window_size=6)
    assert model(images(192))[0].shape == (1, 64, 6, 6)
    with pytest.raises(AssertionError, match=r'the window size \(6\)'):
        model(images())
    model = build(window_size=6, pad_small_map=True)
    assert model(images())[0].shape == (1, 64, 4, 4)


MASK = torch.tensor([[[1, 0, 1, 1], [0, 1, 1, 1], [1, 1, 0, 0], [1, 1, 1,
                                                                 0]]]).bool()


def test_other_strides():
    """Patches of 2 px and three stages: the unit is the last stride."""
    model = build(patch_size=2, img_size=64)
    assert model.unit_size == 16
    assert model(images(64), MASK).shape == (1, 5, 64)
    arch = dict(embed_dims=8, depths=[1, 1, 1], num_heads=[1, 2, 2])
    model = build(arch=arch, out_indices=(2, ))
    assert model.unit_size == 16
    assert model(images(64), MASK).shape == (1, 5, 32)


def test_another_attention_is_refused():
    """The masked forward would compute what it does not."""
    model = build()
    attn = model.stages[1].blocks[0].attn
    attn.w_msa = WindowMSAV2(16, (4, 4), 2)
    with pytest.raises(ValueError, match='window attention WindowMSA for a'):
        model.check_masked()


@pytest.mark.parametrize('norm_cfg', [None, dict(type='LN')])
def test_merging_without_a_norm(norm_cfg):
    merging = randomise(PatchMerging(8, 12, norm_cfg=norm_cfg))
    tokens = torch.randn(2, 4, 8)
    dense, _ = merging(tokens, (2, 2))
    visible = visible_patch_merging(merging, tokens[:, None])
    torch.testing.assert_close(visible[:, 0], dense)


def test_after_downsample():
    """What the dense forward returns does not change the latent."""
    x = images()
    other = randomise(
        build(out_indices=(0, 1, 2, 3), out_after_downsample=True)).eval()
    model = build().eval()
    state = other.state_dict()
    model.load_state_dict({name: state[name] for name in model.state_dict()})
    assert torch.equal(model(x, MASK), other(x, MASK))
    for stage, expected in zip(
            other.forward_stages(x, MASK), model.forward_stages(x, MASK)):
        assert torch.equal(stage, expected)


def test_dropout_of_attention_and_projection():
    for name in ('attn_drop', 'proj_drop'):
        model = build(
            drop_path_rate=0.,
            stage_cfgs=dict(block_cfgs=dict(attn_cfgs={name: 0.5})))
        randomise(model)
        x = images()
        model.train()
        assert not torch.equal(model(x, MASK), model(x, MASK))
        model.eval()
        assert torch.equal(model(x, MASK), model(x, MASK))


def test_the_planner_of_a_backbone():
    model = GreenMIMSwinTransformer(
        arch=dict(embed_dims=8, depths=[1, 2, 3, 2], num_heads=[1, 1, 2, 2]),
        window_size=(14, 7, 7, 7),
        stage_cfgs=[
            dict(block_cfgs=dict(pad_small_map=pad))
            for pad in (False, False, True, False)
        ])
    planner = model.make_planner()
    both = (Window(7, 0, 7), Window(7, 3, 7))
    padded = (Window(7, 0, 7, True), Window(7, 3, 7, True))
    assert planner.stages == (StageWindows(8, (Window(14, 0, 14), )),
                              StageWindows(4, both), StageWindows(2, padded),
                              StageWindows(1, both))
    # the last map is 7x7, one window that cannot be shifted
    layout = VisibleLayout.from_mask(random_mask(1, (7, 7), 0.75))
    plan = planner(layout)
    assert [set(groups) for groups in plan.groups
            ] == [set(stage.windows) for stage in planner.stages]
    assert [len(set(groups.values()))
            for groups in plan.groups] == [1, 2, 2, 1]


def test_plans_of_another_backbone_are_refused():
    arch = dict(embed_dims=8, depths=[2, 2, 2, 2], num_heads=[1, 1, 2, 2])
    model = GreenMIMSwinTransformer(arch=arch, window_size=7)
    other = GreenMIMSwinTransformer(arch=arch, window_size=4)
    images, mask = torch.randn(1, 3, 128, 128), random_mask(1, (4, 4), 0.5)
    plan = other.make_planner()(VisibleLayout.from_mask(mask))
    with pytest.raises(ValueError, match='make_planner'):
        model(images, plan)
    with pytest.raises(ValueError, match='grid'):
        other(images[..., :96], plan)
    plans = other.make_planner()(
        VisibleLayout.from_mask(mask.expand(3, -1, -1)))
    with pytest.raises(ValueError, match='3'):
        other(images.expand(2, -1, -1, -1), plans)


def cubic(x):
    """Keys' kernel with a = -0.75, as PyTorch documents bicubic."""
    x, a = abs(x), -0.75
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.


def resize_slowly(table, window):
    """One entry at a time, in Python's floats."""
    old, new = 2 * bias_table_window(table) - 1, 2 * window - 1
    out = torch.zeros(new**2, table.shape[1], dtype=torch.float64)
    for y in range(new):
        for x in range(new):
            v, u = ((at + 0.5) * old / new - 0.5 for at in (y, x))
            for i in range(math.floor(v) - 1, math.floor(v) + 3):
                for j in range(math.floor(u) - 1, math.floor(u) + 3):
                    row, column = (min(max(at, 0), old - 1) for at in (i, j))
                    out[y * new +
                        x] += cubic(v - i) * cubic(u -
                                                   j) * table[row * old +
                                                              column].double()
    return out


@pytest.mark.parametrize('old, new', [(4, 7), (7, 4), (3, 12), (2, 1)])
def test_a_resized_table_equals_the_slow_twin(old, new):
    table = torch.randn((2 * old - 1)**2, 3, dtype=torch.float64)
    resized = resize_bias_table(table, new)
    assert resized.shape == ((2 * new - 1)**2, 3)
    assert torch.allclose(resized, resize_slowly(table, new), atol=1e-12)


def test_a_table_of_the_same_window_is_the_same_table():
    table = torch.randn(169, 3)
    assert resize_bias_table(table, 7) is table


@pytest.mark.parametrize('shape', [(168, 3), (144, 3), (169, )])
def test_other_tensors_than_bias_tables_are_refused(shape):
    with pytest.raises(ValueError, match=r'expected a bias table .* got \(1'):
        resize_bias_table(torch.zeros(shape), 4)
