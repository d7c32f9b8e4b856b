# Copyright (c) greenmim authors. All rights reserved.
"""Draw what a pre-trained model reconstructs of masked images."""
import argparse
from pathlib import Path
from typing import List, Optional, Sequence

import torch
from mmcv.transforms import Compose
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.registry import DATASETS
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import center_crop, resize

from greenmim.command import add_trust_option
from greenmim.datasets import ImageFolder, fixed_samples
from greenmim.engine.launch import build_model
from greenmim.models.masking import random_mask
from greenmim.ops import unit_grid
from greenmim.visualization import (add_display_arguments, captions_of,
                                    error_remarks, reconstruction_columns,
                                    write_pictures)
from greenmim.weights import load_weights, read_state_dict
from .runs import add_run_arguments, config_and_checkpoint


def parse_args(argv: Optional[Sequence[str]],
               prog: Optional[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog,
        description='Draw input, masked input, reconstruction, paste, a '
        'naive filling and the error')
    add_run_arguments(parser)
    parser.add_argument(
        'images',
        nargs='*',
        help='image files, or folders, of which --num-images images are '
        'taken; by default images of the training data, evenly spaced')
    parser.add_argument(
        '--out',
        type=Path,
        default=Path('reconstruction.png'),
        help='the picture to write, or a page of pictures where it ends in '
        '.html (default: %(default)s)')
    parser.add_argument(
        '--num-images',
        type=int,
        default=6,
        help='how many images of the training data or of a folder, evenly '
        'spaced (default: %(default)s)')
    parser.add_argument(
        '--size',
        type=int,
        help='side to which images are resized and cropped, a multiple of the '
        'mask unit (default: `img_size` of the backbone)')
    parser.add_argument(
        '--mask-ratio',
        type=float,
        help="share of masked units (default: the model's)")
    parser.add_argument(
        '--seed',
        type=int,
        default=0,
        help='seed of the masks (default: %(default)s)')
    add_display_arguments(parser)
    add_trust_option(parser)
    args = parser.parse_args(argv)
    args.config, args.checkpoint = config_and_checkpoint(args, args.images)
    return args


def load_samples(cfg: Config, paths: List[str], number: int) -> List[dict]:
    """Samples of files and folders, or without paths of the training data.

    At most ``number`` images are taken of each folder and of the training
    data, evenly spaced. They are loaded as in training and not augmented.

    Raises:
        FileNotFoundError: If there is no such file, or no image in a folder.
    """
    dataset_cfg = cfg.train_dataloader.dataset
    pipeline = [
        transform for transform in dataset_cfg.pipeline
        if 'Load' in transform.type
    ]
    if paths and not pipeline:
        pipeline = [dict(type='greenmim.LoadImage')]
    pipeline.append(dict(type='mmpretrain.PackInputs'))
    if not paths:
        dataset = DATASETS.build({**dataset_cfg, 'pipeline': pipeline})
        return fixed_samples(dataset, number)
    extensions = dataset_cfg.get('extensions', ImageFolder.EXTENSIONS)
    files = []
    for path in paths:
        found = [dict(img_path=path)]
        if Path(path).is_dir():
            folder = ImageFolder(path, [], extensions, lazy_init=True)
            found = folder.load_data_list()
        count = min(number, len(found))
        files += [found[i * len(found) // count] for i in range(count)]
    load = Compose(pipeline)
    return [load(file) for file in files]


def main(argv: Optional[Sequence[str]] = None,
         prog: Optional[str] = None) -> None:
    """Draw reconstructions.

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
    model = build_model(cfg)
    load_weights(model, read_state_dict(args.checkpoint), args.checkpoint)
    model.eval().to(get_device())
    size = args.size or cfg.model.backbone.get('img_size', 224)
    samples = load_samples(cfg, args.images, args.num_images)
    images = torch.stack([
        center_crop(
            resize(sample['inputs'], [size], InterpolationMode.BICUBIC),
            [size]) for sample in samples
    ])
    mask_ratio = args.mask_ratio
    if mask_ratio is None:
        mask_ratio = model.mask_planner.mask_ratio
    # A mask for every image, whatever the training did: more to see.
    mask = random_mask(
        len(images), unit_grid(images.shape[2:], model.unit_size), mask_ratio,
        torch.Generator().manual_seed(args.seed))
    data = model.data_preprocessor(dict(inputs=[images], data_samples=None))
    result = model.reconstruct(data['inputs'], mask)
    columns = reconstruction_columns(result, model.data_preprocessor,
                                     args.bands, args.stretch)
    captions = captions_of(result)
    if args.out.suffix == '.html':
        captions.insert(
            0, f'{args.config}, {args.checkpoint}: {size} pixels, mask ratio '
            f'{mask_ratio:g}, seed {args.seed}.')
    names = [sample['data_samples'].get('img_path', '') for sample in samples]
    write_pictures(args.out, 'Reconstructions', columns, names, captions,
                   error_remarks(result))
    print(f'{args.out} shows {len(images)} images')
