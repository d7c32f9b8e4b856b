# Copyright (c) greenmim authors. All rights reserved.
"""Compute the targets of a pre-training once, so that no step runs a teacher.

    python tools/misc/cache_targets.py CONFIG --out CACHE --views 8

Every image gets as many fixed views (crops and flips); a training repeats
them, a view each epoch, with new masks every time. The size on the disk is
printed first. Stopped, the same command continues. CACHE/config.py is the
config that trains with the cache.
"""
import argparse
import copy
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config, DictAction
from mmengine.dataset import default_collate
from mmengine.device import get_device
from mmpretrain.registry import DATASETS
from torch.utils.data import DataLoader

from greenmim.command import run_tool
from greenmim.datasets import TargetCache
from greenmim.datasets.cached_targets import source_of
from greenmim.engine.launch import build_model
from greenmim.models.masking.data_samples import single_view


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config of the pre-training')
    parser.add_argument('--out', type=Path, required=True, help='its folder')
    parser.add_argument(
        '--views', type=int, default=4, help='fixed views of each image')
    parser.add_argument('--batch-size', type=int, default=64)
    parser.add_argument('--num-workers', type=int, default=2)
    parser.add_argument('--device', default=get_device())
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        default={},
        help='changes of the config, KEY=VALUE')
    args = parser.parse_args()
    if args.views < 1:
        parser.error(f'expected one view or more, got --views {args.views}')
    return args


@torch.no_grad()
def targets_of(model: Any, batch: dict) -> np.ndarray:
    """The targets of a batch as the loss would compute them, (B, L, D)."""
    inputs = model.data_preprocessor(batch, training=False)['inputs']
    target = model.head.construct_target(single_view(inputs))
    return target.half().cpu().numpy()


def main() -> None:
    args = parse_args()
    cfg = Config.fromfile(args.config)
    cfg.merge_from_dict(args.cfg_options)
    model = build_model(cfg).to(args.device).eval()
    dataset_cfg = cfg.train_dataloader.dataset
    if dataset_cfg.type == 'greenmim.CachedTargets':
        dataset_cfg = dataset_cfg.dataset
    dataset = DATASETS.build(copy.deepcopy(dataset_cfg))

    def load(samples: range) -> DataLoader:
        return DataLoader(
            dataset,
            args.batch_size,
            sampler=[cache.sample(number) for number in samples],
            num_workers=args.num_workers,
            collate_fn=default_collate)

    if not hasattr(model.head, 'target_key'):
        sys.exit('cache_targets.py: expected a greenmim.GreenMIMHead, whose '
                 f'target can be cached, got {type(model.head).__name__}')
    cache = TargetCache(
        source_of(dataset_cfg, dataset), model.head.target_key, len(dataset),
        args.views, (0, 0))
    first = targets_of(model, next(iter(load(range(1)))))
    cache = TargetCache(cache.source, cache.key, cache.num_images, args.views,
                        first.shape[1:])
    try:
        cache.open(args.out)
    except ValueError as error:
        sys.exit(f'cache_targets.py: {error}')
    todo = cache.missing(args.out)
    free = shutil.disk_usage(args.out).free
    left = sum(
        len(samples) for name, samples in cache.shards() if name in todo)
    print(f'{cache.num_images} images x {args.views} views x {first.shape[1]} '
          f'units x {first.shape[2]} values: {cache.num_bytes / 1e6:.1f} MB '
          f'in {len(cache.shards())} files, of which {len(todo)} are to be '
          f'made; {free / 1e6:.0f} MB are free')
    if left * cache.sample_bytes > free:
        sys.exit('cache_targets.py: expected room for the cache; lower '
                 '--views, or take another --out')
    done, start = 0, time.perf_counter()
    for name, samples in cache.shards():
        if name not in todo:
            continue
        cache.write(
            args.out, name,
            np.concatenate(
                [targets_of(model, batch) for batch in load(samples)]))
        done += len(samples)
        rate = done / (time.perf_counter() - start)
        print(
            f'{name}: {rate:.1f} views/s, {(left - done) / rate / 60:.0f} '
            'min left',
            flush=True)
    cfg.train_dataloader.dataset = dict(
        type='greenmim.CachedTargets',
        cache=str(args.out.resolve()),
        dataset=dataset_cfg)
    cfg.train_dataloader.sampler.views_per_image = args.views
    cfg.dump(args.out / 'config.py')
    print(f'train with it: python tools/train.py {args.out / "config.py"}')


if __name__ == '__main__':
    run_tool(main)
