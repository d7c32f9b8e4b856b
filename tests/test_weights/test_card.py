# Copyright (c) greenmim authors. All rights reserved.
"""The model card of exports: in the file, in Python, in timm, transformers."""
import json

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope

import greenmim
from greenmim.apis import import_checkpoint
from greenmim.registry import MODELS
from tests.conftest import CHECKOUT
from tests.micro_checkpoint import BACKBONES, make_backbone, save_training

TRAINING = dict(
    data_preprocessor=dict(
        type='greenmim.ChannelDataPreprocessor',
        mean=[10.2, 20.4, 30.6],
        std=[51., 25.5, 12.75],
        to_rgb=True),
    train_cfg=dict(by_epoch=True, max_epochs=9),
    train_dataloader=dict(
        dataset=dict(
            type='greenmim.ImageFolder',
            data_root='data/leaves',
            pipeline=[
                dict(type='greenmim.LoadImage'),
                dict(type='RandomResizedCrop', scale=64)
            ])))


def train(path, family, **changes):
    """What a run of a family leaves, in its eighth epoch."""
    model = dict(
        type='greenmim.GreenMIM',
        backbone=BACKBONES[family],
        mask_ratio=0.6,
        head=dict(
            type='greenmim.GreenMIMHead',
            unit_size=32,
            target=dict(type='greenmim.HOGTarget')))
    text = Config(dict(TRAINING, model=model, **changes)).pretty_text
    meta = dict(cfg=text, epoch=8, iter=800)
    return save_training(path, make_backbone(family), meta=meta)


def test_what_it_says(tmp_path):
    """It stays the same from file to file."""
    run = train(tmp_path / 'epoch_8.pth', 'convnext')
    exported = greenmim.export(run, 'safetensors')
    card = json.loads(exported.report.read_text())['card']
    assert card == dict(
        normalisation=dict(
            mean=[10.2, 20.4, 30.6],
            std=[51., 25.5, 12.75],
            channel_order='RGB',
            value_range=[0, 255]),
        image_size=64,
        training=dict(
            algorithm='greenmim.GreenMIM',
            mask_ratio=0.6,
            unit_size=32,
            target='greenmim.HOGTarget',
            data='data/leaves',
            iterations=800,
            epochs=8),
        licence='not recorded')
    again = greenmim.export(exported.file, 'mmdet')
    assert json.loads(again.report.read_text())['card'] == card
    for file in run, exported.file, again.file:
        backbone = greenmim.load(file)
        assert backbone.card == card
        x = torch.randn(1, 3, 64, 64)
        torch.testing.assert_close(
            backbone(x)[-1],
            make_backbone('convnext')(x)[-1])


RECIPES = sorted((CHECKOUT / 'configs' / 'quickstart').glob('*_photos-*.py'))


def test_every_quick_start_exports(tmp_path):
    """Its own checkpoint alone says what the backbone is."""
    for recipe in RECIPES:
        cfg = Config.fromfile(recipe)
        with DefaultScope.overwrite_default_scope('mmpretrain'):
            model = MODELS.build(cfg.model)
        path = tmp_path / f'{recipe.stem}.pth'
        meta = dict(cfg=cfg.pretty_text)
        torch.save(dict(state_dict=model.state_dict(), meta=meta), path)
        file = greenmim.export(path, 'mmdet').file
        if 'pvt' not in recipe.stem:  # a class of MMDetection's
            loaded = greenmim.load(file).state_dict()
            for name, tensor in model.backbone.state_dict().items():
                assert name not in loaded or torch.equal(tensor, loaded[name])
            assert len(loaded) > len(model.backbone.state_dict()) - 3
    assert len(RECIPES) >= 10


def test_a_file_without_records(tmp_path):
    """Nothing is made up; what is assumed says so."""
    path = save_training(tmp_path / 'a.pth', make_backbone('swin'))
    exported = greenmim.export(path, 'mmpretrain')
    card = json.loads(exported.report.read_text())['card']
    assert 'none is recorded' in card['normalisation']['assumed']
    assert card['training'] == card['image_size'] == 'not recorded'


def test_the_licence_of_imported_weights(tmp_path):
    """It goes with all that is made of them."""
    first = greenmim.export(train(tmp_path / 'a.pth', 'twins_svt'),
                            'timm').file
    import_checkpoint.main([
        str(first), '--from', 'timm', '--licence', 'CC-BY-NC-4.0', '--out',
        str(tmp_path / 'imported.pth')
    ])
    second = greenmim.export(tmp_path / 'imported.pth', 'mmseg').file
    continued = train(
        tmp_path / 'b.pth',
        'twins_svt',
        load_from=str(tmp_path / 'imported.pth'))
    third = greenmim.export(continued, 'mmpretrain').file
    for file in tmp_path / 'imported.pth', second, third:
        assert greenmim.load(file).card['licence'] == 'CC-BY-NC-4.0'
    training = greenmim.load(third).card['training']
    assert training['started_from'] == str(tmp_path / 'imported.pth')


def test_in_timm(tmp_path):
    """Also with a new number of classes."""
    timm = pytest.importorskip('timm')
    exported = greenmim.export(train(tmp_path / 'a.pth', 'convnext'), 'timm')
    pasted = {}
    exec(exported.code, pasted)
    model = pasted['model']
    found = timm.data.resolve_model_data_config(model)
    assert found['mean'] == pytest.approx([0.04, 0.08, 0.12])
    assert found['std'] == pytest.approx([0.2, 0.1, 0.05])
    assert tuple(found['input_size']) == (3, 64, 64)
    model.reset_classifier(7)
    assert model(torch.randn(1, 3, 64, 64)).shape == (1, 7)


def test_in_transformers(tmp_path):
    """Also with a new number of classes."""
    hf = pytest.importorskip('transformers')
    exported = greenmim.export(
        train(tmp_path / 'a.pth', 'convnext_v2'), 'transformers')
    processor = hf.AutoImageProcessor.from_pretrained(exported.file)
    assert processor.image_mean == pytest.approx([0.04, 0.08, 0.12])
    assert processor.image_std == pytest.approx([0.2, 0.1, 0.05])
    assert processor.size == dict(height=64, width=64)
    model = hf.AutoModelForImageClassification.from_pretrained(
        exported.file, num_labels=7)
    assert model(torch.randn(1, 3, 64, 64)).logits.shape == (1, 7)
    again = greenmim.load(exported.file).state_dict()
    assert again.keys() == make_backbone('convnext_v2').state_dict().keys()
    stem = model.base_model.embeddings.patch_embeddings.weight
    assert torch.equal(
        stem,
        make_backbone('convnext_v2').downsample_layers[0][0].weight)
