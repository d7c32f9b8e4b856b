# Copyright (c) greenmim authors. All rights reserved.
"""The paper's initialisation, and what was loaded instead of it."""
import pytest
import torch
from mmpretrain.registry import MODELS
from scipy import stats
from torch import nn

from tests.micro import micro_config, micro_model


@pytest.fixture(scope='module')
def model():
    torch.manual_seed(0)
    config = micro_config()
    config['backbone'].update(use_abs_pos_embed=True, img_size=128)
    model = MODELS.build(config)
    # What the initialisation leaves alone stays visible.
    for parameter in model.parameters():
        nn.init.constant_(parameter, 7.)
    model.init_weights()
    return model


def p_value(tensor, distribution):
    """Kolmogorov-Smirnov: how likely the values are if drawn from it."""
    return stats.kstest(tensor.detach().flatten().numpy(),
                        distribution.cdf).pvalue


def uniform(bound):
    return stats.uniform(-bound, 2 * bound)


def test_linear_layers(model):
    layers = [m for m in model.modules() if isinstance(m, nn.Linear)]
    # 4 in each of 5 Swin blocks and 1 decoder block, 3 mergings, 2 at the
    # ends of the decoder.
    assert len(layers) == 4 * 6 + 3 + 2
    for layer in layers:
        bound = (6 / (layer.in_features + layer.out_features))**.5
        assert layer.weight.abs().max() <= bound
        assert p_value(layer.weight, uniform(bound)) > 1e-4
        assert layer.weight.abs().max() > .95 * bound
        assert layer.bias is None or not layer.bias.any()


def test_patch_embedding_is_seen_as_a_matrix(model):
    projection = model.backbone.patch_embed.projection
    bound = (6 / (3 * 4 * 4 + 16))**.5
    assert p_value(projection.weight, uniform(bound)) > 1e-4
    # Xavier that counts 16 * 4 * 4 outputs would be narrower.
    as_convolution = (6 / (3 * 4 * 4 + 16 * 4 * 4))**.5
    assert projection.weight.abs().max() > 1.5 * as_convolution
    assert not projection.bias.any()


def test_norms(model):
    norms = [m for m in model.modules() if isinstance(m, nn.LayerNorm)]
    # 2 in each of 6 blocks, 3 mergings, patch embedding, last stage, decoder.
    assert len(norms) == 2 * 6 + 3 + 3
    for norm in norms:
        assert (norm.weight == 1).all() and not norm.bias.any()


def test_tables_and_tokens(model):
    normal = stats.norm(0, .02)
    tables = [
        p for name, p in model.named_parameters()
        if name.endswith('relative_position_bias_table')
    ]
    assert len(tables) == 5
    assert p_value(torch.cat([t.flatten() for t in tables]), normal) > 1e-4
    assert p_value(model.backbone.absolute_pos_embed, normal) > 1e-4
    assert p_value(model.neck.mask_token, normal) > 1e-4


def test_every_parameter_is_initialised(model):
    for name, parameter in model.named_parameters():
        assert parameter.abs().max() < 7, name


def test_channels_last_weights():
    """Drawing must not work on a copy of the weight."""
    model = micro_model(randomise=False).to(memory_format=torch.channels_last)
    nn.init.constant_(model.backbone.patch_embed.projection.weight, 7.)
    model.init_weights()
    assert model.backbone.patch_embed.projection.weight.abs().max() < 1


def save(path, state_dict):
    torch.save(dict(state_dict=state_dict), path)
    return str(path)


def test_pretrained_model_is_kept(tmp_path):
    source = micro_model()
    path = save(tmp_path / 'model.pth', source.state_dict())
    model = micro_model(
        randomise=False, init_cfg=dict(type='Pretrained', checkpoint=path))
    model.init_weights()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, source.state_dict()[name]), name


@pytest.mark.parametrize('part, in_list', [('backbone', False),
                                           ('neck', False), ('neck', True)])
def test_pretrained_part_is_kept(tmp_path, part, in_list):
    """The other parts are initialised as usual."""
    source = micro_model()
    path = save(tmp_path / 'model.pth', source.state_dict())
    config = micro_config()
    init_cfg = dict(type='Pretrained', checkpoint=path, prefix=f'{part}.')
    config[part]['init_cfg'] = [init_cfg] if in_list else init_cfg
    model = MODELS.build(config)
    model.init_weights()
    loaded, drawn = model.backbone, model.neck
    if part == 'neck':
        loaded, drawn = drawn, loaded
    expected = getattr(source, part).state_dict()
    for name, tensor in loaded.state_dict().items():
        assert torch.equal(tensor, expected[name]), name
    for name, tensor in drawn.named_parameters():
        if name.endswith('bias'):
            assert not tensor.any(), name
    other = dict(source.named_parameters())
    for name, tensor in drawn.named_parameters():
        full = ('neck.' if part == 'backbone' else 'backbone.') + name
        assert not torch.equal(tensor, other[full]), name


def test_own_init_cfg_replaces_the_papers():
    model = micro_model(
        randomise=False,
        init_cfg=dict(type='Constant', layer='Linear', val=.5, bias=.25))
    model.init_weights()
    assert (model.neck.decoder_pred.weight == .5).all()
    assert (model.neck.decoder_pred.bias == .25).all()
