# Copyright (c) greenmim authors. All rights reserved.
"""Show what a model is trained on: augmented images and their masks."""
import argparse
from pathlib import Path
from typing import Dict, List, Optional, Sequence, Tuple

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS
from mmpretrain.models import BaseSelfSupervisor

from greenmim.datasets import fixed_samples, folder_with_pipeline
from greenmim.engine.launch import build_model
from greenmim.models.masking.data_samples import plan_masks
from greenmim.visualization import (ColourDisplay, add_display_arguments,
                                    write_pictures)
from greenmim.visualization.reconstruction import GREY
from .runs import config_of


def parse_args(argv: Optional[Sequence[str]],
               prog: Optional[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog, description='Show images as the training sees them, with masks')
    parser.add_argument(
        'config', help='config of the pre-training, or the folder of a run')
    parser.add_argument(
        '--data',
        help='folder of images (default: the training data of the config)')
    parser.add_argument(
        '--out',
        type=Path,
        default=Path('samples.html'),
        help='the page to write, or a picture where it ends in .png or .jpg '
        '(default: %(default)s)')
    parser.add_argument(
        '--num-images',
        type=int,
        default=8,
        help='how many images, evenly spaced (default: %(default)s)')
    parser.add_argument(
        '--views',
        type=int,
        default=2,
        help='how often each is augmented and masked (default: %(default)s)')
    parser.add_argument(
        '--seed',
        type=int,
        default=0,
        help='seed of augmentation and masks (default: %(default)s)')
    add_display_arguments(parser)
    args = parser.parse_args(argv)
    if Path(args.config).is_dir():
        args.config = str(config_of(Path(args.config)))
    return args


def draw_view(model: BaseSelfSupervisor, samples: List[dict],
              args: argparse.Namespace) -> Tuple[np.ndarray, np.ndarray]:
    """Augmented images and the same masked, uint8 (B, H, W, 3)."""
    images = torch.stack([sample['inputs'] for sample in samples])
    images = model.data_preprocessor(dict(inputs=[images],
                                          data_samples=None))['inputs'][0]
    shown = ColourDisplay(images, model.data_preprocessor, args.bands,
                          args.stretch)(
                              images)
    masked = shown.copy()
    for image, sample in zip(masked, samples):
        plan = plan_masks(model.mask_planner, [sample['data_samples']], 1,
                          image.shape[:2])
        hidden = plan.layout.masked[0].numpy()
        hidden = hidden.repeat(model.unit_size, 0).repeat(model.unit_size, 1)
        image[hidden] = GREY
    return shown, masked


def main(argv: Optional[Sequence[str]] = None,
         prog: Optional[str] = None) -> None:
    """Show training samples with masks.

    Args:
        argv (Sequence[str], optional): The words after the program. Defaults
            to None, those of this process.
        prog (str, optional): The program in its help. Defaults to None, the
            script.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If an argument does not fit.
    """
    args = parse_args(argv, prog)
    cfg = Config.fromfile(args.config)
    columns: Dict[str, np.ndarray] = {}
    # It knows the mask units and how masks are drawn.
    model = build_model(cfg)
    dataset_cfg = cfg.train_dataloader.dataset
    if args.data is None:
        dataset = DATASETS.build(dataset_cfg)
    else:
        dataset = folder_with_pipeline(dataset_cfg.pipeline, args.data)
    if args.views < 1 or args.num_images < 1:
        raise ValueError('expected --views and --num-images of 1 or more, '
                         f'got {args.views} and {args.num_images}')
    for view in range(args.views):
        samples = fixed_samples(dataset, args.num_images, args.seed + view)
        suffix = f' {view + 1}' if args.views > 1 else ''
        columns[f'view{suffix}'], columns[f'masked{suffix}'] = draw_view(
            model, samples, args)
    height, width = columns[f'masked{suffix}'].shape[1:3]
    captions = [
        f'{args.config}: images of {width}x{height} pixels, mask units of '
        f'{model.unit_size}, mask ratio {model.mask_planner.mask_ratio:g}. '
        'Grey is what the model does not see.'
    ]
    names = [s['data_samples'].get('img_path', '') for s in samples]
    write_pictures(args.out, 'Training samples', columns, names, captions)
    print(f'{args.out} shows {len(samples)} of {len(dataset)} images')
