# Copyright (c) greenmim authors. All rights reserved.
"""ViT of FastMIM, SimMIM and timm: the same features and losses here.

The models of timm are the oracle, and so are the few lines that make a
pre-training of them.
"""
from functools import partial

import pytest
import torch
from mmengine.config import Config
from mmpretrain.models import BEiTViT, VisionTransformer
from torch import nn
from torch.nn import functional as F

from greenmim.models import GreenMIMVisionTransformer
from greenmim.registry import MODELS
from greenmim.weights import (TARGETS, convert_rest, fit_to, passport_of,
                              read_backbone, read_source, tensors_for,
                              write_weights)
from greenmim.weights.beit import BEIT
from greenmim.weights.vit import VIT
from tests.conftest import CHECKOUT
from tests.micro import plan_of
from tests.micro_checkpoint import randomise

timm = pytest.importorskip('timm')

ARCH = dict(embed_dims=24, num_layers=3, num_heads=6, feedforward_channels=96)
WIDTH = dict(
    img_size=64,
    patch_size=16,
    embed_dim=24,
    depth=3,
    num_heads=6,
    norm_layer=partial(nn.LayerNorm, eps=1e-6))
SHARED = dict(
    use_abs_pos_emb=False, use_shared_rel_pos_bias=True, init_values=0.1)
UNIT = 32


def theirs_of(model: nn.Module) -> nn.Module:
    """In evaluation mode, in double precision, with all values random."""
    torch.manual_seed(0)
    return randomise(model).double()


def plain(**changes):
    return theirs_of(
        timm.models.vision_transformer.VisionTransformer(
            **{
                **WIDTH, 'num_classes': 0,
                **changes
            }))


def relative(**changes):
    return theirs_of(
        timm.models.beit.Beit(**{
            **WIDTH, 'num_classes': 0,
            **SHARED,
            **changes
        }))


def with_index(tensors, prefix='rel_pos_bias.'):
    """SimMIM's files hold the index that timm computes: row and column are
    the offset of two patches on their map, and the class token is the first.
    """
    side = 4
    row, col = torch.arange(side**2) // side, torch.arange(side**2) % side
    index = torch.empty(side**2 + 1, side**2 + 1, dtype=torch.long)
    index[1:, 1:] = ((row[:, None] - row + side - 1) * (2 * side - 1) +
                     (col[:, None] - col + side - 1))
    index[0], index[:, 0], index[0, 0] = 49, 50, 51
    return {**tensors, f'{prefix}relative_position_index': index}


def save(path, tensors):
    torch.save(dict(model=tensors), path)
    return read_source(path)


def assert_close(ours, theirs):
    assert ours.shape == theirs.shape and theirs.std() > 0.1
    assert (ours - theirs).abs().max() <= 1e-10 * theirs.abs().max()


def load(kind, backbone, **changes):
    model = kind(**{**backbone.settings, **changes}).double()
    model.load_state_dict(backbone.tensors, strict=True)
    model.eval()  # returns nothing in MMPretrain
    return model


def assert_round_trip(backbone, layout, theirs):
    back, homeless = backbone.family.to_layout(backbone.tensors,
                                               backbone.family.layouts[layout])
    assert not homeless and back.keys() == theirs.keys()
    assert all(torch.equal(back[name], theirs[name]) for name in back)


@pytest.mark.parametrize('changes', [
    {},
    dict(global_pool='avg'),
    dict(init_values=0.1),
    dict(class_token=False, global_pool='avg'),
], ids=['token', 'avg', 'layer-scale', 'no-class-token'])  # yapf: disable
@torch.no_grad()
def test_features_equal_those_of_timm(tmp_path, changes):
    model = plain(**changes)
    backbone = read_backbone(
        save(tmp_path / 'a.pth', model.state_dict()),
        'timm',
        known=dict(num_heads=6))
    assert backbone.family is VIT and backbone.settings['arch'] == ARCH
    assert backbone.settings['img_size'] == 64
    assert_round_trip(backbone, 'timm', model.state_dict())
    x = torch.randn(2, 3, 64, 64).double()
    pooled = 'global_pool' in changes
    expected = model(x) if pooled else model.forward_features(x)
    out_type = dict(out_type='avg_featmap' if pooled else 'raw')
    ours = load(VisionTransformer, backbone, **out_type)
    assert_close(ours(x)[0], expected)
    arch = dict(ARCH, num_heads=3)
    wrong = load(VisionTransformer, backbone, arch=arch, **out_type)
    assert not torch.allclose(wrong(x)[0], expected)


@pytest.mark.parametrize('shared', [True, False])
@torch.no_grad()
def test_relative_features_equal_those_of_timm(tmp_path, shared):
    model = relative(
        use_shared_rel_pos_bias=shared, use_rel_pos_bias=not shared)
    source = save(tmp_path / 'a.pth', model.state_dict())
    backbone = read_backbone(source, 'timm')
    assert backbone.family is BEIT
    assert backbone.settings['arch'] == ARCH
    assert backbone.settings['use_shared_rel_pos_bias'] == shared
    assert_round_trip(backbone, 'timm', model.state_dict())
    x = torch.randn(2, 3, 64, 64).double()
    assert_close(load(BEiTViT, backbone)(x)[0], model(x))
    with pytest.raises(
            ValueError, match=r"not to be told the \['num_heads'\]"):
        read_backbone(source, 'timm', known=dict(num_heads=6))


def recipe(path, **changes):
    """The model of a pre-training recipe, in small and in double."""
    cfg = Config.fromfile(CHECKOUT / 'configs' / path)
    cfg.merge_from_dict({
        'model.backbone.img_size': 64,
        'model.backbone.drop_path_rate': 0.,
        'model.neck.in_channels': 24,
        **changes
    })
    cfg.model.backbone.arch = ARCH
    model = MODELS.build(cfg.model).double()
    model.eval()
    return model


MASK = torch.tensor([[[True, False], [True, True]]])
FINE = MASK.repeat_interleave(2, 1).repeat_interleave(2, 2)


def loss_of(model, images, mask):
    plan = plan_of(model, images, mask)
    pred = model.decode(model.encode(images, plan))
    return pred, model.head.loss(pred, images, plan.layout)


def pre_trained_simmim():
    """SimMIM's tensors, and what its pre-training computes with them.

    In: images (B, 3, H, W). Out: predicted images of that shape.
    """
    encoder = relative(global_pool='token', use_fc_norm=False)
    torch.manual_seed(1)
    decoder = nn.Conv2d(24, 16 * 16 * 3, 1).double()
    token = torch.randn(1, 1, 24).double()
    tensors = {f'encoder.{k}': v for k, v in encoder.state_dict().items()}
    tensors.update({f'decoder.0.{k}': v for k, v in
                    decoder.state_dict().items()})  # yapf: disable
    tensors['encoder.mask_token'] = token
    tensors = with_index(tensors, 'encoder.rel_pos_bias.')

    def forward(images):
        x = encoder.patch_embed(images)
        x = torch.where(FINE.flatten(1)[:, :, None], token, x)
        x = torch.cat([encoder.cls_token.expand(len(x), -1, -1), x], 1)
        bias = encoder.rel_pos_bias()
        for block in encoder.blocks:
            x = block(x, shared_rel_pos_bias=bias)
        x = encoder.norm(x)[:, 1:].transpose(1, 2).unflatten(2, (4, 4))
        return F.pixel_shuffle(decoder(x), 16)

    return tensors, forward


@torch.no_grad()
def test_a_whole_simmim(tmp_path):
    """The recipe's own model takes every tensor and has the same loss."""
    tensors, forward = pre_trained_simmim()
    source = save(tmp_path / 'a.pth', tensors)
    backbone = read_backbone(source, 'simmim')
    assert backbone.norm_eps == 1e-6 and not backbone.coverage.faults
    rest, coverages = convert_rest('simmim', source, backbone)
    assert [part.total for part in coverages] == [2, 1]
    assert not any(part.faults for part in coverages)
    model = recipe('simmim/simmim_vit-base-p16_8xb256-amp-steplr-800e_in1k.py')
    model.load_state_dict(
        {
            **{
                f'backbone.{k}': v
                for k, v in backbone.tensors.items()
            },
            **rest
        },
        strict=True)

    images = torch.randn(2, 3, 64, 64).double()
    pred = forward(images)
    masked = FINE.repeat_interleave(16, 1).repeat_interleave(16, 2)[:, None]
    expected = (pred - images).abs()[masked.expand_as(images)].mean()
    ours, loss = loss_of(model, images, MASK)
    units = pred.unfold(2, UNIT, UNIT).unfold(3, UNIT, UNIT)
    assert_close(ours,
                 units.permute(0, 2, 3, 4, 5, 1).flatten(3).flatten(1, 2))
    assert loss.item() == pytest.approx(expected.item(), rel=1e-9)

    back, _ = BEIT.to_layout(backbone.tensors, BEIT.layouts['simmim'])
    assert {f'encoder.{k}'
            for k in back} == {k
                               for k in tensors if k.startswith('encoder.')
                               } - {'encoder.mask_token'}
    for name, tensor in back.items():
        assert torch.equal(tensor, tensors[f'encoder.{name}']), name


@pytest.mark.parametrize('name, fault', [
    ('encoder.rel_pos_bias.relative_position_index', 'index: indexes the'),
    ('encoder.blocks.1.attn.v_bias', r'layers\.1\.attn\.v_bias: missing'),
    ('encoder.blocks.2.gamma_2', r'layers\.2\.gamma_2: missing'),
    ('encoder.cls_token', 'backbone.cls_token: missing'),
    ('encoder.norm.', 'backbone.ln1.weight: missing'),
    ('encoder.blocks.0.mlp.fc1.weight', 'the tensors of a whole ViT'),
])
def test_damaged_simmim(tmp_path, name, fault):
    tensors, _ = pre_trained_simmim()
    if name.endswith('index'):
        tensors[name] = tensors[name].flip(0)
    else:
        tensors = {k: v for k, v in tensors.items() if not k.startswith(name)}
    with pytest.raises(ValueError, match=fault):
        read_backbone(save(tmp_path / 'a.pth', tensors), 'simmim')


@torch.no_grad()
def test_fine_tuned_simmim(tmp_path):
    """Its layers have a table each there; the classifier gives the same."""
    model = relative(
        num_classes=5, use_shared_rel_pos_bias=False, use_rel_pos_bias=True)
    tensors = dict(model.state_dict())
    for i in range(3):
        tensors = with_index(tensors, f'blocks.{i}.attn.')
    source = save(tmp_path / 'a.pth', tensors)
    backbone = read_backbone(source, 'simmim')
    assert backbone.settings['use_rel_pos_bias']
    assert_classifies_alike(model, 'simmim', source, backbone,
                            'mmpretrain.BEiTViT')


def assert_classifies_alike(model, name, source, backbone, kind):
    rest, (coverage, ) = convert_rest(name, source, backbone)
    assert coverage.total == 2 and not coverage.faults
    classifier = MODELS.build(
        dict(
            type='mmpretrain.ImageClassifier',
            backbone=dict(type=kind, **backbone.settings),
            head=dict(
                type='mmpretrain.LinearClsHead', num_classes=5,
                in_channels=24))).double().eval()
    classifier.load_state_dict(
        {
            **{
                f'backbone.{k}': v
                for k, v in backbone.tensors.items()
            },
            **rest
        },
        strict=True)
    x = torch.randn(2, 3, 64, 64).double()
    assert_close(classifier.head(classifier.extract_feat(x)), model(x))


@torch.no_grad()
def test_a_whole_fastmim(tmp_path):
    """Encoder and decoder read a class token, the encoder has 6 heads."""
    encoder = plain()
    encoder.pos_embed[:, 0] = 0.
    decoder = plain(embed_dim=32, depth=1, num_heads=1)
    torch.manual_seed(1)
    embed, pred = nn.Linear(24, 32).double(), nn.Linear(32, 108).double()
    token = torch.randn(1, 3, 1, 1).double()
    tensors = {f'encoder.{k}': v for k, v in encoder.state_dict().items()}
    for name, module in (('embed', embed), ('blocks', decoder.blocks),
                         ('norm', decoder.norm), ('pred', pred)):
        tensors.update({
            f'decoder_{name}.{k}': v
            for k, v in module.state_dict().items()
        })
    tensors['mask_token'] = token
    source = save(tmp_path / 'a.pth', tensors)
    backbone = read_backbone(source, 'fastmim')
    assert backbone.settings['arch'] == ARCH and backbone.norm_eps == 1e-6
    rest, coverages = convert_rest('fastmim', source, backbone)
    assert not any(part.faults for part in coverages)
    model = recipe(
        'fastmim/fastmim_vit-base-p16_8xb512-amp-coslr-800e_in1k-128px.py', **{
            'model.neck.embed_dims': 32,
            'model.neck.num_heads': 1
        })
    model.load_state_dict(
        {
            **{
                f'backbone.{k}': v
                for k, v in backbone.tensors.items()
            },
            **rest
        },
        strict=True)

    images = torch.randn(2, 3, 64, 64).double()
    masked = FINE.repeat_interleave(16, 1).repeat_interleave(16, 2)[:, None]
    x = encoder.forward_features(torch.where(masked, token, images))
    for block in decoder.blocks:
        x = block(embed(x) if block is decoder.blocks[0] else x)
    expected = pred(decoder.norm(x))[:, 1:]
    ours, _ = loss_of(model, images, FINE)
    assert_close(ours, expected)
    assert_round_trip(
        backbone, 'fastmim', {
            k[len('encoder.'):]: v
            for k, v in tensors.items() if k.startswith('encoder.')
        })


@torch.no_grad()
def test_fine_tuned_fastmim(tmp_path):
    """Without a class token's norm; heads are those of 64 channels."""
    model = plain(embed_dim=24, num_heads=1, num_classes=5, global_pool='avg')
    source = save(tmp_path / 'a.pth', model.state_dict())
    backbone = read_backbone(source, 'fastmim')
    assert backbone.settings['arch']['num_heads'] == 1
    assert not backbone.settings['final_norm']
    for name in 'fastmim', 'timm':
        assert_classifies_alike(model, name, source, backbone,
                                'mmpretrain.VisionTransformer')


@pytest.mark.parametrize('own', [True, False])
def test_maps_have_no_norm(tmp_path, own):
    """For detection and segmentation, out of either training."""
    tensors = (plain() if own else plain(global_pool='avg')).state_dict()
    backbone = read_backbone(save(tmp_path / 'a.pth', tensors), 'timm')
    fitted = fit_to(backbone, TARGETS['mmseg'])
    norm = 'ln1' if own else 'ln2'
    assert fitted.dropped == (f'{norm}.weight', f'{norm}.bias')
    model = VisionTransformer(**{**fitted.settings, 'out_indices': [0, 1, 2]})
    model.load_state_dict(fitted.tensors, strict=True)
    assert len(model(torch.randn(1, 3, 96, 64))) == 3
    whole = fit_to(backbone, TARGETS['mmpretrain'])
    assert not whole.dropped and whole.tensors.keys() == backbone.tensors.keys(
    )
    with pytest.raises(ValueError, match='no window'):
        fit_to(backbone, TARGETS['mmpretrain'], [7])


def test_declared_heads_and_sizes_are_kept(tmp_path):
    """A run's config and a file's passport tell what tensors do not."""
    cfg = dict(
        type='greenmim.GreenMIMVisionTransformer',
        arch=ARCH,
        img_size=[32, 64],
        out_type='raw',
        fixed_positions=True)
    torch.manual_seed(0)
    model = GreenMIMVisionTransformer(**{
        k: v
        for k, v in cfg.items() if k != 'type'
    })
    text = Config(dict(model=dict(backbone=cfg), lr=1.)).pretty_text
    tensors = {f'backbone.{k}': v for k, v in model.state_dict().items()}
    torch.save(
        dict(state_dict=tensors, meta=dict(cfg=text)), tmp_path / 'a.pth')
    source = read_source(tmp_path / 'a.pth')
    backbone = read_backbone(source)
    assert backbone.settings['arch'] == ARCH
    assert backbone.settings['img_size'] == backbone.img_size == [32, 64]

    target = TARGETS['safetensors']
    write_weights(
        tmp_path / 'b.safetensors', fit_to(backbone, target), target,
        passport_of(backbone, source, 'a.pth', 'mmpretrain', 'safetensors'))
    again = read_backbone(read_source(tmp_path / 'b.safetensors'))
    assert again.settings == backbone.settings
    assert all(
        torch.equal(again.tensors[k], v) for k, v in backbone.tensors.items())
    del source.config['arch']['num_heads']
    with pytest.raises(ValueError, match='an arch of ViT'):
        read_backbone(source)


def test_what_is_no_vit_is_refused(tmp_path):
    tensors = plain().state_dict()
    source = save(tmp_path / 'a.pth', tensors)
    with pytest.raises(ValueError, match='heads that divide the 24 channels'):
        read_backbone(source, 'timm', known=dict(num_heads=5))
    for lost, fault in (('norm.', 'ln1.weight: missing'),
                        ('cls_token', 'a square image, got 17')):
        rest = {k: v for k, v in tensors.items() if not k.startswith(lost)}
        with pytest.raises(ValueError, match=fault):
            read_backbone(save(tmp_path / 'a.pth', rest), 'timm')
    del tensors['pos_embed']
    with pytest.raises(ValueError, match='pos_embed, found none'):
        read_backbone(save(tmp_path / 'a.pth', tensors), 'timm')
    tensors['pos_embed'] = torch.zeros(1, 13, 24)
    with pytest.raises(ValueError, match='a square image, got 12'):
        read_backbone(save(tmp_path / 'a.pth', tensors), 'timm')
    with pytest.raises(ValueError, match='expected a tensor rel_pos_bias'):
        BEIT.infer_settings({})


def test_declared_relative_positions():
    cfg = Config.fromfile(
        CHECKOUT / 'configs' / 'simmim' /
        'simmim_vit-base-p16_8xb256-amp-steplr-800e_in1k.py').model.backbone
    settings = BEIT.declared_settings(cfg.to_dict())
    with torch.device('meta'):
        built = BEIT.build({**settings, 'layer_scale_init_value': 0.1})
    assert BEIT.infer_settings(built.state_dict(), 1e-6) == {
        **settings, 'out_type': 'featmap'
    }


def test_names_of_timm_are_exported(tmp_path):
    """What is written for timm, its own class loads strictly."""
    model = relative()
    backbone = read_backbone(
        save(tmp_path / 'a.pth', model.state_dict()), 'timm')
    target = TARGETS['timm']
    tensors = tensors_for(fit_to(backbone, target), target)
    other = relative()
    other.load_state_dict(tensors, strict=True)
