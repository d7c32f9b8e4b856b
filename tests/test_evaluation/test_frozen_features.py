# Copyright (c) greenmim authors. All rights reserved.
import os
import sys

import pytest
import torch
import torch.multiprocessing as mp
from mmengine.dist import get_rank
from mmengine.runner import Runner

from greenmim.evaluation import (extract_features, frozen_features,
                                 knn_accuracy, knn_predict, labelled_folder,
                                 linear_accuracy)
from tests.micro import micro_model

PREPROCESSOR = dict(
    type='SelfSupDataPreprocessor',
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    to_rgb=True)


def load(dataset, batch_size=5):
    return Runner.build_dataloader(
        dict(
            dataset=dataset,
            batch_size=batch_size,
            num_workers=0,
            sampler=dict(type='DefaultSampler', shuffle=False),
            collate_fn=dict(type='default_collate')))


def setting(root):
    """A random model and both loaders."""
    torch.manual_seed(0)
    model = micro_model(data_preprocessor=PREPROCESSOR)
    return model, *map(load, labelled_folder(str(root), size=128))


def by_hand(model, dataset):
    """Features of one image after another, by the definition."""
    mean, std = (
        torch.tensor(PREPROCESSOR[name]).view(3, 1, 1)
        for name in ('mean', 'std'))
    features = []
    for sample in dataset:
        image = (sample['inputs'].flip(0).float() - mean) / std
        with torch.no_grad():
            _, channels, height, width = model.backbone(image[None])[-1].shape
            maps = model.backbone(image[None])[-1][0]
        features.append(
            sum(maps[:, y, x] for y in range(height)
                for x in range(width)) / (height * width))
    return torch.stack(features)


def test_features_and_accuracy(labelled):
    model, bank, queries = setting(labelled)
    model.train()
    features, labels = extract_features(model, bank)
    assert model.training and model.backbone.training
    model.eval()
    expected = by_hand(model, bank.dataset)
    torch.testing.assert_close(features, expected)
    assert labels.tolist() == [i // 4 for i in range(24)]

    scores = knn_predict(expected, labels, by_hand(model, queries.dataset), 3)
    truth = torch.arange(12) // 2
    top1 = (scores.argmax(1) == truth).double().mean().item() * 100
    accuracy = knn_accuracy(model, bank, queries, k=3)
    assert set(accuracy) == {'top1', 'top5'}
    assert accuracy['top1'] == pytest.approx(top1)
    assert 100 / 6 < top1 < accuracy['top5'] or top1 == 100


def test_a_class_without_a_vote_never_counts(labelled, monkeypatch):
    """Nor is an order made up among such classes."""
    model, bank, queries = setting(labelled)
    monkeypatch.setattr(
        frozen_features, 'extract_features', lambda model, loader:
        (torch.eye(6)[:, :6], torch.arange(6))
        if loader is bank else (torch.eye(6).roll(1, 0), torch.arange(6)))
    assert knn_accuracy(model, bank, queries, k=1) == dict(top1=0., top5=0.)


def test_top5_needs_more_than_five_classes(labelled, tmp_path):
    for part in 'train', 'val':
        (tmp_path / part).mkdir()
        for name in 'class0', 'class1':
            (tmp_path / part / name).symlink_to(labelled / part / name)
    assert set(knn_accuracy(*setting(tmp_path), k=3)) == {'top1'}


def worker(rank, root, folder):
    os.chdir(folder)
    torch.distributed.init_process_group(
        'gloo', f'file://{folder}/store', rank=rank, world_size=2)
    torch.set_num_threads(1)
    results = setting(root)
    features = extract_features(*results[:2])
    accuracy = knn_accuracy(*results, k=3)
    assert (features is None) == (get_rank() == 1) == (accuracy == dict())
    if rank == 0:
        torch.save((*features, accuracy), f'{folder}/result.pth')
    torch.distributed.destroy_process_group()


@pytest.mark.skipif(sys.platform == 'win32', reason='forks processes')
def test_two_processes_agree_with_one(labelled, tmp_path):
    """23 images do not divide evenly."""
    for part in 'train', 'val':
        for folder in sorted((labelled / part).iterdir()):
            (tmp_path / 'data' / part / folder.name).mkdir(parents=True)
            for file in sorted(folder.iterdir()):
                (tmp_path / 'data' / part / folder.name /
                 file.name).symlink_to(file)
    (tmp_path / 'data' / 'train' / 'class5' / '0.png').unlink()
    mp.start_processes(
        worker, (str(tmp_path / 'data'), str(tmp_path)),
        nprocs=2,
        start_method='fork')  # what is imported need not be again
    features, labels, accuracy = torch.load(tmp_path / 'result.pth')
    model, bank, queries = setting(tmp_path / 'data')
    expected, expected_labels = extract_features(model, bank)
    assert len(features) == 23
    torch.testing.assert_close(features, expected)
    assert labels.equal(expected_labels)
    assert accuracy == knn_accuracy(model, bank, queries, k=3)


def test_linear_probe_of_features_with_a_linear_boundary():
    """Where nearest neighbours see noise: one of 40 channels tells."""
    generator = torch.Generator().manual_seed(0)
    features = 3 * torch.randn(400, 40, generator=generator)
    labels = torch.arange(400) % 2
    features[:, 7] = labels + .1 * torch.randn(400, generator=generator)
    halves = features[:200], labels[:200], features[200:], labels[200:]
    assert linear_accuracy(*halves) > 95
    shuffled = labels[torch.randperm(400, generator=generator)]
    assert linear_accuracy(features[:200], shuffled[:200], features[200:],
                           shuffled[200:]) < 70
