# Copyright (c) greenmim authors. All rights reserved.
"""Draw what a pre-trained model makes of masked images."""
import argparse
import sys
from pathlib import Path
from typing import List

import torch
from mmcv.transforms import Compose
from mmengine.config import Config, ConfigDict
from mmengine.device import get_device
from mmengine.registry import DATASETS, init_default_scope
from mmpretrain.models import BaseSelfSupervisor
from PIL import Image
from torch import Tensor

from greenmim.engine.checkpoint import read_state_dict
from greenmim.ops import random_mask, unit_grid
from greenmim.registry import MODELS
from greenmim.visualization import draw_reconstruction


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description='Draw input, masked input, reconstruction and paste')
    parser.add_argument('config', help='config of the pre-training')
    parser.add_argument('checkpoint', help='checkpoint of the pre-training')
    parser.add_argument(
        'images',
        nargs='*',
        help='image files; by default images of the training data, evenly '
        'spaced')
    parser.add_argument(
        '--out',
        type=Path,
        default=Path('reconstruction.png'),
        help='the picture to write (default: %(default)s)')
    parser.add_argument(
        '--num-images',
        type=int,
        default=6,
        help='how many images of the training data (default: %(default)s)')
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
    return parser.parse_args()


def build_model(cfg: Config, checkpoint: str) -> BaseSelfSupervisor:
    """Build the model of a config with the weights of a checkpoint."""
    model_cfg = ConfigDict(cfg.model)
    # As the runner does:
    model_cfg.setdefault('data_preprocessor', cfg.get('data_preprocessor'))
    model = MODELS.build(model_cfg)
    model.load_state_dict(read_state_dict(checkpoint))
    return model.eval().to(get_device())


def load_images(cfg: Config, files: List[str], number: int,
                size: int) -> Tensor:
    """Load files, or images of the training data, for a model.

    Returns:
        Tensor: Images of shape (B, C, size, size), not yet normalised.
    """
    dataset_cfg = cfg.train_dataloader.dataset
    pipeline = [
        transform for transform in dataset_cfg.pipeline
        if 'Load' in transform.type
    ]
    if files and not pipeline:
        pipeline = [dict(type='greenmim.LoadImage')]
    pipeline += [
        dict(
            type='mmpretrain.ResizeEdge',
            scale=size,
            edge='short',
            backend='pillow',
            interpolation='bicubic'),
        dict(type='mmpretrain.CenterCrop', crop_size=size),
        dict(type='mmpretrain.PackInputs')
    ]
    if files:
        load = Compose(pipeline)
        packed = [load(dict(img_path=file)) for file in files]
    else:
        dataset = DATASETS.build({**dataset_cfg, 'pipeline': pipeline})
        number = min(number, len(dataset))
        packed = [dataset[i * len(dataset) // number] for i in range(number)]
    return torch.stack([sample['inputs'] for sample in packed])


def main() -> None:
    args = parse_args()
    cfg = Config.fromfile(args.config)
    init_default_scope(cfg.get('default_scope', 'mmpretrain'))
    try:
        model = build_model(cfg, args.checkpoint)
        size = args.size or cfg.model.backbone.get('img_size', 224)
        images = load_images(cfg, args.images, args.num_images, size)
        mask_ratio = args.mask_ratio
        if mask_ratio is None:
            mask_ratio = model.mask_planner.mask_ratio
        # A mask for every image, whatever the training did: more to see.
        mask = random_mask(
            len(images), unit_grid(images.shape[2:], model.backbone.unit_size),
            mask_ratio,
            torch.Generator().manual_seed(args.seed))
        data = model.data_preprocessor(
            dict(inputs=[images], data_samples=None))
        result = model.reconstruct(data['inputs'], mask)
    except (FileNotFoundError, ValueError) as error:
        sys.exit(f'{Path(__file__).name}: {error}')
    picture = draw_reconstruction(result, model.data_preprocessor)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(args.out)
    print(f'{args.out} shows {len(images)} images')


if __name__ == '__main__':
    main()
