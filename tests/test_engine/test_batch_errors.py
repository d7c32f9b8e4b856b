# Copyright (c) greenmim authors. All rights reserved.
"""Batches that cannot be made: the error names setting, sizes, ways out."""
import subprocess
import sys
import uuid

import pytest
from mmengine.config import Config
from mmengine.runner import Runner
from mmpretrain.registry import MODELS
from torch.utils.data import BatchSampler, DataLoader, SequentialSampler

from greenmim.engine.loops import batch_size_of
from tests.conftest import CHECKOUT, LAUNCH
from tests.micro import SWIN_ARCH, micro_runner, save_classes, save_images
from tests.processes import cpu_environment, free_port

LOAD, PACK = dict(type='greenmim.LoadImage'), dict(type='PackInputs')
CROP = dict(type='RandomResizedCrop', scale=64)
EPOCHS = dict(train_cfg=dict(type='greenmim.ResumableEpochLoop', max_epochs=2))


def train(tmp_path, *transforms, collate='greenmim.collate', **options):
    """Pre-train on the images in ``tmp_path / 'images'``."""
    loader = dict(
        dict(
            collate_fn=dict(type=collate),
            sampler=dict(type='greenmim.SeededSampler'),
            dataset=dict(
                type='greenmim.ImageFolder',
                data_root=str(tmp_path / 'images'),
                pipeline=[LOAD, *transforms, PACK])),
        **options.pop('loader', {}))
    runner = micro_runner(tmp_path / 'run', loader,
                          **dict(dict(EPOCHS), **options))
    runner.train()
    return runner


@pytest.mark.parametrize('num_workers', [0, 1])
def test_images_of_several_sizes(tmp_path, num_workers):
    save_images(tmp_path / 'images', 3, (64, 96))
    save_images(tmp_path / 'images' / 'more', 1, (96, 64))
    with pytest.raises(ValueError) as error:
        train(tmp_path, loader=dict(num_workers=num_workers))
    text = str(error.value)
    assert 'images of one size in a batch' in text
    assert '(3, 64, 96)' in text and '(3, 96, 64)' in text
    assert 'more/0.png' in text
    assert 'RandomResizedCrop' in text and 'greenmim.padding_collate' in text


def test_either_way_out_of_several_sizes(tmp_path):
    save_images(tmp_path / 'images', 3, (64, 96))
    save_images(tmp_path / 'images' / 'more', 1, (96, 64))
    assert train(tmp_path, CROP).iter == 2
    model = dict(mask_scope='image')
    model['backbone'] = dict(
        type='greenmim.GreenMIMConvNeXt',
        arch=dict(depths=[1, 1, 1, 1], channels=[8, 16, 32, 64]),
        drop_path_rate=0.)
    runner = train(tmp_path, collate='greenmim.padding_collate', model=model)
    assert runner.iter == 2


@pytest.mark.parametrize('kind, sizes', [('RandomCrop', [(64, 96)]),
                                         ('CenterCrop', [(64, 96),
                                                         (128, 128)])])
def test_a_crop_larger_than_an_image(tmp_path, kind, sizes):
    """Even where all images are alike, and the batch could be made."""
    for i, size in enumerate(sizes):
        save_images(tmp_path / 'images' / str(i), 2, size)
    with pytest.raises(ValueError) as error:
        train(tmp_path, dict(type=kind, crop_size=96))
    text = str(error.value)
    assert f'{kind}(crop_size=' in text and '96' in text
    assert '64 x 96 pixels of' in text and '0/' in text
    assert 'smaller crop_size' in text and 'ResizeEdge' in text
    assert '`pipeline` of the dataset' in text
    if kind == 'RandomCrop':
        assert train(tmp_path, dict(type=kind, crop_size=64)).iter == 2
    else:
        crop = dict(type=kind, crop_size=96)
        assert train(tmp_path, dict(type='ResizeEdge', scale=96), crop).iter


def test_fewer_images_than_a_batch(tmp_path):
    save_images(tmp_path / 'images', 3)
    with pytest.raises(ValueError) as error:
        train(tmp_path, loader=dict(drop_last=True))
    text = str(error.value)
    assert 'train_dataloader.batch_size=4, got 3 with drop_last=True' in text
    assert 'lower train_dataloader.batch_size' in text
    assert 'train_dataloader.drop_last=False' in text
    assert train(tmp_path, loader=dict(drop_last=True, batch_size=3)).iter == 2
    assert train(tmp_path).iter == 2


def test_fewer_images_than_a_batch_in_each_of_two_processes(
        tmp_path, make_config):
    """Six images are enough for one process, and not for two."""
    save_images(tmp_path / 'images', 6)
    loop = dict(type='greenmim.ResumableEpochLoop', max_epochs=1)
    config = make_config({
        'train_cfg':
        dict(loop, _delete_=True),
        'train_dataloader.drop_last':
        True,
        'train_dataloader.dataset.data_root':
        str(tmp_path / 'images')
    })
    run = subprocess.run([
        sys.executable, '-m', 'torch.distributed.run', '--nproc_per_node=2',
        f'--master_port={free_port()}', CHECKOUT / 'tools' / 'train.py',
        config, '--launcher', 'pytorch', '--work-dir', tmp_path / 'run'
    ],
                         env=cpu_environment(LAUNCH),
                         capture_output=True,
                         text=True,
                         timeout=300)
    assert run.returncode
    assert 'batch_size=4, got 3 (of 6) in each process' in run.stderr


def test_the_same_where_the_runner_is_built_from_a_config(tmp_path):
    save_images(tmp_path / 'images', 3)
    config = CHECKOUT / 'configs' / (
        'greenmim_swin-tiny-w7_8xb256-amp-coslr-200e_in1k.py')
    cfg = Config.fromfile(config)
    cfg.merge_from_dict({
        'work_dir':
        str(tmp_path / 'run'),
        'experiment_name':
        uuid.uuid4().hex,
        'model.backbone.arch':
        dict(SWIN_ARCH, _delete_=True),
        'model.neck.in_channels':
        64,
        'optim_wrapper':
        dict(_delete_=True, optimizer=dict(type='SGD', lr=1)),
        'train_dataloader.num_workers':
        0,
        'train_dataloader.persistent_workers':
        False,
        'train_dataloader.drop_last':
        True,
        'train_dataloader.dataset.data_root':
        str(tmp_path / 'images')
    })
    with pytest.raises(ValueError, match='batch_size=256, got 3'):
        Runner.from_cfg(cfg).train()


def classify(tmp_path, number, **loader):
    """Fine-tune a classifier with BatchNorm1d on images of one class."""
    save_classes(tmp_path / 'images', [100], number)
    cfg = Config.fromfile(LAUNCH / 'micro_classifier.py')
    model = cfg.model
    model.neck = [
        model.neck,
        dict(type='ClsBatchNormNeck', input_features=model.head.in_channels)
    ]
    dataset = dict(
        type='greenmim.SeededCustomDataset',
        data_root=str(tmp_path / 'images'),
        pipeline=[LOAD, PACK])
    options = dict(
        dataset=dataset, sampler=dict(type='greenmim.SeededSampler'), **loader)
    options.setdefault('collate_fn', dict(type='greenmim.collate'))
    model = MODELS.build(dict(model, data_preprocessor=cfg.data_preprocessor))
    runner = micro_runner(tmp_path / 'run', options, model=model, **EPOCHS)
    runner.train()
    return runner


@pytest.mark.parametrize('number', [1, 5])
def test_one_image_in_a_batch_of_batch_normalisation(tmp_path, number):
    """It would end the run at the end of the first epoch."""
    with pytest.raises(ValueError) as error:
        classify(tmp_path, number)
    text = str(error.value)
    assert f'{number} images with train_dataloader.batch_size=4' in text
    assert 'another batch_size' in text
    assert 'train_dataloader.drop_last=True' in text


@pytest.mark.parametrize('loader', [dict(batch_size=3), dict(drop_last=True)])
def test_either_way_out_of_one_image_in_a_batch(tmp_path, loader):
    assert classify(tmp_path, 5, **loader).iter > 0


def test_one_image_is_enough_to_pre_train(tmp_path):
    save_images(tmp_path / 'images', 1)
    assert train(tmp_path, CROP).iter == 2
    loop = dict(type='IterBasedTrainLoop', max_iters=2)
    runner = train(
        tmp_path,
        CROP,
        train_cfg=loop,
        loader=dict(
            sampler=dict(type='greenmim.SeededInfiniteSampler'),
            drop_last=True))
    assert runner.iter == 2


def test_an_empty_folder_names_the_setting(tmp_path):
    (tmp_path / 'images').mkdir()
    with pytest.raises(FileNotFoundError, match='data_root.*extensions'):
        train(tmp_path)


def test_batch_size_of_a_loader_with_a_batch_sampler():
    """As that of MMDetection, whose loaders have no batch size."""
    images = list(range(10))
    assert batch_size_of(DataLoader(images, batch_size=4)) == 4
    sampler = BatchSampler(SequentialSampler(images), 3, drop_last=False)
    loader = DataLoader(images, batch_sampler=sampler)
    assert loader.batch_size is None and batch_size_of(loader) == 3
    sampler.batch_size = [2, 3]  # of two sources
    assert batch_size_of(loader) == 5
    assert batch_size_of(DataLoader(images, batch_size=None)) == 1
