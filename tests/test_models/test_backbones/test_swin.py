# Copyright (c) greenmim authors. All rights reserved.
"""What users of MMPretrain's Swin Transformer rely on, for ours."""
import copy
import logging
import pickle
from functools import partial
from itertools import chain

import pytest
import torch
from mmengine.logging import MMLogger
from mmengine.runner import load_checkpoint, save_checkpoint
from mmengine.utils.dl_utils.parrots_wrapper import _BatchNorm
from mmpretrain.models import SwinTransformer
from mmpretrain.models.utils import resize_pos_embed
from mmpretrain.registry import MODELS
from torch import nn

from greenmim.models import GreenMIM, GreenMIMSwinTransformer
from greenmim.models.backbones.swin import resize_bias_table
from greenmim.ops import VisibleLayout
from tests.backbones.checks import randomise
from tests.micro import SWIN_ARCH

MICRO = dict(arch=SWIN_ARCH, window_size=4, img_size=128)


def images(size=128, channels=3):
    return torch.randn(1, channels, size, size)


class TestArch:

    def test_unknown_name(self):
        with pytest.raises(AssertionError, match='not in default archs'):
            GreenMIMSwinTransformer(arch='unknown')

    def test_unknown_argument(self):
        with pytest.raises(TypeError, match='windw_size'):
            GreenMIMSwinTransformer(**MICRO, windw_size=7)

    @pytest.mark.parametrize('name', ['t', 'Tiny', 'small', 'B', 'large'])
    def test_names(self, name, monkeypatch):
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


class TestRegistry:

    def test_reached_from_mmpretrain(self):
        model = MODELS.build(
            dict(type='greenmim.GreenMIMSwinTransformer', **MICRO))
        assert type(model) is GreenMIMSwinTransformer
        assert isinstance(model, SwinTransformer)

    def test_a_window_for_each_stage(self):
        model = GreenMIMSwinTransformer(**{
            **MICRO, 'window_size': (8, 4, 2, 1)
        })
        same = GreenMIMSwinTransformer(
            **MICRO,
            stage_cfgs=[
                dict(block_cfgs=dict(window_size=w)) for w in (8, 4, 2, 1)
            ])
        same.load_state_dict(model.state_dict(), strict=True)
        for stage, other, w in zip(model.stages, same.stages, (8, 4, 2, 1)):
            for block, twin in zip(stage.blocks, other.blocks):
                assert block.attn.window_size == w
                assert twin.attn.window_size == w
                assert block.attn.shift_size == twin.attn.shift_size

    @pytest.mark.parametrize('window_size', [(7, 7), (7, 7, 7, 7, 7)])
    def test_windows_for_other_stages(self, window_size):
        with pytest.raises(ValueError, match='window'):
            GreenMIMSwinTransformer(**{**MICRO, 'window_size': window_size})

    def test_a_window_for_each_stage_beside_stage_cfgs(self):
        drop = dict(block_cfgs=dict(attn_cfgs=dict(proj_drop=0.25)))
        model = GreenMIMSwinTransformer(
            **{
                **MICRO, 'window_size': (8, 4, 2, 1)
            }, stage_cfgs=drop)
        assert model.stages[1].blocks[0].attn.window_size == 4
        assert model.stages[1].blocks[0].attn.w_msa.proj_drop.p == 0.25
        assert drop == dict(block_cfgs=dict(attn_cfgs=dict(proj_drop=0.25)))


class TestWeights:

    def test_init_weights(self):
        model = GreenMIMSwinTransformer(
            **MICRO,
            use_abs_pos_embed=True,
            init_cfg=[
                dict(
                    type='Kaiming',
                    layer='Conv2d',
                    mode='fan_in',
                    nonlinearity='linear')
            ])
        before = model.patch_embed.projection.weight.clone()
        assert model.absolute_pos_embed.eq(0).all()
        model.init_weights()
        assert not torch.equal(model.patch_embed.projection.weight, before)
        assert model.absolute_pos_embed.std() > 0.01
        tables = [
            block.attn.w_msa.relative_position_bias_table
            for stage in model.stages for block in stage.blocks
        ]
        assert all(0.01 < float(table.std()) < 0.03 for table in tables)

    def test_old_checkpoints(self, tmp_path):
        """Version 1 names the last norm ``norm`` and stores masks."""
        model = randomise(
            GreenMIMSwinTransformer(**MICRO, use_abs_pos_embed=True))
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
            loaded = GreenMIMSwinTransformer(**MICRO, use_abs_pos_embed=True)
            load_checkpoint(loaded, path, strict=True)
            for name, value in model.state_dict().items():
                assert torch.equal(loaded.state_dict()[name], value), name

    def test_a_norm_that_is_not_old_stays(self):
        """The renaming touches neither a neck beside us nor new files."""

        class Both(nn.Module):

            def __init__(self):
                super().__init__()
                self.backbone = GreenMIMSwinTransformer(**MICRO)
                self.norm = nn.LayerNorm(3)
                self.attn_mask = nn.Parameter(torch.randn(3))

        source, target = Both(), Both()
        randomise(source)
        for state in (source.state_dict(), dict(source.state_dict())):
            target.load_state_dict(state, strict=True)
            for name, value in source.state_dict().items():
                assert torch.equal(target.state_dict()[name], value), name

    def test_another_image_size(self, tmp_path):
        """The absolute position embedding is interpolated."""
        model = randomise(
            GreenMIMSwinTransformer(**MICRO, use_abs_pos_embed=True))
        path = str(tmp_path / 'model.pth')
        save_checkpoint(model.state_dict(), path)
        larger = GreenMIMSwinTransformer(
            **{
                **MICRO, 'img_size': 192
            }, use_abs_pos_embed=True)
        load_checkpoint(larger, path, strict=True)
        expected = resize_pos_embed(model.absolute_pos_embed, (32, 32),
                                    (48, 48), 'bicubic', 0)
        assert larger.absolute_pos_embed.shape == (1, 48 * 48, 8)
        assert torch.allclose(larger.absolute_pos_embed, expected)

    def test_tables_of_another_window_are_resized(self, tmp_path, monkeypatch):
        """Also through MMEngine, strictly, and the index buffers fit."""
        loaded = GreenMIMSwinTransformer(**MICRO)
        for param in loaded.parameters():
            nn.init.normal_(param)
        path = str(tmp_path / 'a.pth')
        torch.save(loaded.state_dict(), path)
        model = GreenMIMSwinTransformer(**{**MICRO, 'window_size': 7})
        lines = []
        monkeypatch.setattr('greenmim.models.backbones.swin.print_log',
                            lambda line, logger: lines.append(line))
        load_checkpoint(model, path, strict=True)
        state, fresh = model.state_dict(), GreenMIMSwinTransformer(
            **{
                **MICRO, 'window_size': 7
            }).state_dict()
        tables = 0
        for name, tensor in loaded.state_dict().items():
            if name.endswith('relative_position_bias_table'):
                tensor, tables = resize_bias_table(tensor, 7), tables + 1
            elif name.endswith('relative_position_index'):
                tensor = fresh[name]
            assert torch.equal(state[name], tensor), name
        assert f'Resized {tables} relative position bias tables' in lines[0]
        assert 'from window 4 to 7' in lines[0]

    def test_another_number_of_heads_is_refused(self):
        heads = dict(MICRO['arch'], num_heads=[2, 2, 2, 4])
        model = GreenMIMSwinTransformer(**{
            **MICRO, 'arch': heads,
            'window_size': 7
        })
        state = GreenMIMSwinTransformer(**MICRO).state_dict()
        with pytest.raises(
                ValueError,
                match='window 7, 2 heads, got window 4, 1 heads; build'):
            model.load_state_dict(state)

    def test_a_checkpoint_of_a_run_initialises_the_parent(self, tmp_path):
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
                        type='Pretrained', checkpoint=path,
                        prefix='backbone.'),
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


class TestForward:

    def test_window_larger_than_the_map(self):
        cfg = {**MICRO, 'window_size': 6}
        model = GreenMIMSwinTransformer(**cfg)
        assert model(images(192))[0].shape == (1, 64, 6, 6)
        with pytest.raises(AssertionError, match=r'the window size \(6\)'):
            model(images(128))
        model = GreenMIMSwinTransformer(**cfg, pad_small_map=True)
        assert model(images(128))[0].shape == (1, 64, 4, 4)


class TestStructure:

    @pytest.mark.parametrize('norm_eval', [True, False])
    def test_norm_eval(self, norm_eval):
        norm_cfg = dict(type='BN')
        model = GreenMIMSwinTransformer(
            **MICRO,
            norm_eval=norm_eval,
            norm_cfg=norm_cfg,
            stage_cfgs=dict(block_cfgs=dict(norm_cfg=norm_cfg)))
        model.init_weights()
        model.train()
        norms = [m for m in model.modules() if isinstance(m, _BatchNorm)]
        assert len(norms) == 11
        assert all(norm.training is not norm_eval for norm in norms)

    @pytest.mark.parametrize('frozen_stages', [-1, 0, 2])
    def test_frozen_stages(self, frozen_stages):
        model = GreenMIMSwinTransformer(
            **MICRO, frozen_stages=frozen_stages, out_indices=(0, 1, 2, 3))
        model.init_weights()
        model.train()
        assert model.patch_embed.training is (frozen_stages < 0)
        for param in model.patch_embed.parameters():
            assert param.requires_grad is (frozen_stages < 0)
        for i, stage in enumerate(model.stages):
            trained = i > frozen_stages
            assert stage.training is trained
            norm = getattr(model, f'norm{i}')
            for param in chain(stage.parameters(), norm.parameters()):
                assert param.requires_grad is trained

    def test_layer_depth(self):
        """Layer-wise learning rate decay sees the parent's depths."""
        model = GreenMIMSwinTransformer(**MICRO)
        parent = SwinTransformer(**MICRO)
        for name, _ in model.named_parameters():
            depth = model.get_layer_depth(f'backbone.{name}', 'backbone.')
            assert depth == parent.get_layer_depth(f'backbone.{name}',
                                                   'backbone.')
        assert model.get_layer_depth('patch_embed.norm.bias') == (0, 7)
        assert model.get_layer_depth('stages.2.blocks.1.norm1.bias') == (4, 7)
        assert model.get_layer_depth('norm3.bias') == (6, 7)


class TestMaskedForward:
    mask = torch.tensor([[[1, 0, 1, 1], [0, 1, 1, 1], [1, 1, 0, 0],
                          [1, 1, 1, 0]]]).bool()

    def test_other_strides(self):
        """Patches of 2 px and three stages: the unit is the last stride."""
        cfg = dict(MICRO, patch_size=2, img_size=64)
        model = GreenMIMSwinTransformer(**cfg)
        assert model.unit_size == 16
        assert model(images(64), self.mask).shape == (1, 5, 64)
        arch = dict(embed_dims=8, depths=[1, 1, 1], num_heads=[1, 2, 2])
        model = GreenMIMSwinTransformer(
            **{
                **MICRO, 'arch': arch
            }, out_indices=(2, ))
        assert model.unit_size == 16
        assert model(images(64), self.mask).shape == (1, 5, 32)

    def test_after_downsample(self):
        """What the dense forward returns does not change the latent."""
        x = images()
        other = randomise(
            GreenMIMSwinTransformer(
                **MICRO, out_indices=(0, 1, 2, 3),
                out_after_downsample=True)).eval()
        model = GreenMIMSwinTransformer(**MICRO).eval()
        state = other.state_dict()
        model.load_state_dict(
            {name: state[name]
             for name in model.state_dict()})
        assert torch.equal(model(x, self.mask), other(x, self.mask))
        for stage, expected in zip(
                other.forward_stages(x, self.mask),
                model.forward_stages(x, self.mask)):
            assert torch.equal(stage, expected)

    def test_a_plan(self):
        """Made beforehand, by this backbone's planner only."""
        x = images()
        model = GreenMIMSwinTransformer(**MICRO).eval()
        plan = model.make_planner()(VisibleLayout.from_mask(self.mask))
        plan = pickle.loads(pickle.dumps(plan))
        assert torch.equal(model(x, plan), model(x, self.mask))
        other = GreenMIMSwinTransformer(**{**MICRO, 'window_size': 7})
        with pytest.raises(ValueError, match='plan for.*make_planner'):
            other(x, plan)
        with pytest.raises(ValueError, match='unit grid'):
            model(images(160), plan)

    def test_layers_that_reach_beyond_a_unit_are_refused(self):
        x = images()
        merging = dict(downsample_cfg=dict(kernel_size=3, stride=2))
        model = GreenMIMSwinTransformer(**MICRO, stage_cfgs=merging)
        with pytest.raises(ValueError, match='merging'):
            model(x, self.mask)
        model = GreenMIMSwinTransformer(
            **MICRO, patch_cfg=dict(kernel_size=7, stride=4, padding=3))
        with pytest.raises(ValueError, match='patch embedding'):
            model(x, self.mask)

    def test_the_latent_needs_the_last_norm(self):
        model = GreenMIMSwinTransformer(**MICRO, out_indices=(0, ))
        with pytest.raises(ValueError, match='out_indices'):
            model(images(), self.mask)

    def test_dropout_of_attention_and_projection(self):
        for name in ('attn_drop', 'proj_drop'):
            model = GreenMIMSwinTransformer(
                **MICRO,
                drop_path_rate=0.,
                stage_cfgs=dict(block_cfgs=dict(attn_cfgs={name: 0.5})))
            randomise(model)
            x = images()
            model.train()
            assert not torch.equal(model(x, self.mask), model(x, self.mask))
            model.eval()
            assert torch.equal(model(x, self.mask), model(x, self.mask))
