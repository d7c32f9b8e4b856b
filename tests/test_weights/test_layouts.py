# Copyright (c) greenmim authors. All rights reserved.
import pytest
import torch

from greenmim.weights.layouts import last_stage, rename_all, translate
from greenmim.weights.swin import SWIN
from tests.micro_checkpoint import make_swin


@pytest.mark.parametrize('name, source, target, expected', [
    ('a.3.x', 'a.{i}.', 'b{i}.', 'b3.x'),
    ('a.3.x', 'a.{i+1}.', 'b.{i}.', 'b.2.x'),
    ('b.2.x', 'b.{i}.', 'a.{i+1}.', 'a.3.x'),
    ('a.3.b.12.x', 'a.{i}.b.{j}.', '{j}.{i}.', '12.3.x'),
    ('axb', 'a.', 'c.', None),
    ('xa.3.b', 'a.{i}.', 'c.{i}.', None),
    ('name', '', 'prefix.', 'prefix.name'),
])  # yapf: disable
def test_translate(name, source, target, expected):
    assert translate(name, source, target) == expected


def test_last_stage():
    assert last_stage(['layers.0.x', 'layers.12.blocks.99.x']) == 12


@pytest.mark.parametrize('name', SWIN.layouts)
def test_there_and_back(name):
    layout = SWIN.layouts[name]
    tensors = {
        key: tensor
        for key, tensor in make_swin().state_dict().items()
        if not key.endswith(layout.without or ('never', ))
    }
    theirs, homeless = SWIN.to_layout(tensors, layout)
    assert len(theirs) == len(tensors) and not homeless
    ours, homeless = SWIN.from_layout(theirs, layout)
    assert ours.keys() == tensors.keys() and not homeless
    for key, tensor in tensors.items():
        assert torch.equal(ours[key], tensor), key
        if 'downsample' in key and layout.merge_order != 'openmmlab':
            assert not any(
                torch.equal(tensor, other) for other in theirs.values()), key


def test_names_of_timm():
    """Its merging stands at the beginning of a stage."""
    theirs, _ = SWIN.to_layout(make_swin().state_dict(), SWIN.layouts['timm'])
    assert 'layers.3.downsample.norm.bias' in theirs
    assert not any(name.startswith('layers.0.downsample') for name in theirs)


def test_what_has_no_name_is_told():
    renamed, homeless = rename_all({
        'x': torch.ones(1),
        'y': torch.ones(1)
    }, (('x', 'z'), ), True)
    assert list(renamed) == ['z'] and homeless == ('y', )
