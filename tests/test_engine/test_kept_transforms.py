# Copyright (c) greenmim authors. All rights reserved.
"""A resumed run decodes and resizes as it did when it began."""
import copy
from pathlib import Path

import pytest
from mmengine.config import Config

from greenmim.engine import launch
from tests.recipes import find, load

RECIPE = 'greenmim_swin-tiny-w7_8xb256-amp-coslr-200e_in1k'
NEW = dict(
    LoadImage=dict(type='greenmim.LoadImage', decoder='opencv'),
    RandomResizedCrop=dict(type='greenmim.RandomResizedCrop', scale=224),
    RandomFlip=dict(type='greenmim.RandomFlip', prob=0.5))
# As recipes had them before there was a choice; OpenCV decodes to the same
# values.
OLD = dict(
    LoadImage=dict(type='greenmim.LoadImage'),
    RandomResizedCrop=dict(type='RandomResizedCrop', scale=224),
    RandomFlip=dict(type='RandomFlip', prob=0.5))
PILLOW = dict(NEW, LoadImage=dict(type='greenmim.LoadImage', decoder='pillow'))


@pytest.mark.parametrize(
    'before, now, kept, said', [
        (OLD, NEW, dict(OLD, LoadImage=NEW['LoadImage']), 2),
        (NEW, OLD, dict(NEW, LoadImage=OLD['LoadImage']), 2),
        (PILLOW, NEW, PILLOW, 1),
        (NEW, PILLOW, NEW, 1),
        (NEW, NEW, NEW, 0),
    ],
    ids=['old', 'new', 'pillow', 'opencv', 'same'])
@pytest.mark.parametrize('resume', [True, False])
def test_a_resumed_run_keeps_its_transforms(tmp_path, monkeypatch, before, now,
                                            kept, said, resume):
    lines = []
    monkeypatch.setattr(launch, 'print_log',
                        lambda line, **_: lines.append(line))
    cfg = copy.deepcopy(load(find(RECIPE)))
    for pipeline in before, now:
        cfg.train_dataloader.dataset.pipeline = copy.deepcopy(
            list(pipeline.values()))
        if pipeline is before:
            cfg.dump(tmp_path / Path(cfg.filename).name)
    cfg.update(work_dir=str(tmp_path), resume=resume)
    launch.keep_transforms(cfg)
    expected = kept if resume else now
    assert cfg.train_dataloader.dataset.pipeline == list(expected.values())
    assert len(lines) == said * resume
    for line in lines:
        assert 'began with' in line and 'keeps it' in line


def test_pillow_is_asked_for_by_an_option():
    cfg = copy.deepcopy(load(find(RECIPE)))
    launch.set_defaults(cfg)
    launch.set_options(
        cfg, {'train_dataloader.dataset.pipeline.0.decoder': 'pillow'})
    assert cfg.train_dataloader.dataset.pipeline[0].decoder == 'pillow'


def test_recipes_name_their_decoder():
    """So that the config in the folder of a run records it."""
    folder = Path(launch.__file__).parents[2] / 'configs' / '_base_'
    for name in 'greenmim', 'simmim_192px', 'fastmim_128px':
        file = folder / 'datasets' / f'imagenet_bs256_{name}.py'
        load_image, crop, flip, _ = Config.fromfile(file).train_pipeline
        assert load_image.decoder == 'opencv'
        assert crop.type == 'greenmim.RandomResizedCrop'
        assert flip.type == 'greenmim.RandomFlip'
