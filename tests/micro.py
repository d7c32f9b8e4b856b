# Copyright (c) greenmim authors. All rights reserved.
"""Small models and images that the tests share."""
import json
import uuid
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple, Union

import numpy as np
from mmengine.runner import Runner
from mmpretrain.registry import MODELS
from PIL import Image
from torch import Tensor, nn

from greenmim.ops import MaskPlan

# A stage of two blocks, so that windows are shifted; its latent has 64
# channels. Change a part of it with dict(SWIN_ARCH, depths=[1, 1, 1, 1]).
SWIN_ARCH = dict(embed_dims=8, depths=[1, 1, 2, 1], num_heads=[1, 2, 2, 4])
NORM_CFG = dict(type='LN', eps=1e-6)
PREPROCESSOR = dict(
    type='SelfSupDataPreprocessor', mean=[120.] * 3, std=[60.] * 3)


def micro_config(in_channels: int = 3, **overrides: Any) -> Dict[str, Any]:
    """The config of a GreenMIM model that trains on a CPU in seconds.

    Args:
        in_channels (int): Channels of the images. Defaults to 3.
        overrides: Fields of the algorithm, in place of those here.
    """
    return dict(
        dict(
            type='greenmim.GreenMIM',
            backbone=dict(
                type='greenmim.GreenMIMSwinTransformer',
                arch=SWIN_ARCH,
                in_channels=in_channels,
                window_size=4,
                drop_path_rate=0.,
                norm_cfg=NORM_CFG),
            neck=dict(
                type='greenmim.GreenMIMNeck',
                in_channels=64,
                embed_dims=32,
                num_heads=4,
                out_channels=32 * 32 * in_channels),
            head=dict(type='greenmim.GreenMIMHead')), **overrides)


def micro_model(randomise: bool = True, **overrides: Any) -> nn.Module:
    """The model of :func:`micro_config`, by default with random parameters."""
    model = MODELS.build(micro_config(**overrides))
    if randomise:
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=.1)
    return model


def plan_of(model: nn.Module,
            images: Tensor,
            mask: Optional[Tensor] = None) -> MaskPlan:
    """The plan of a mask, or of one that the model draws, for images."""
    return model.mask_planner(len(images), images.shape[2:], mask)


def micro_runner(work_dir: Path,
                 loader: Dict[str, Any],
                 hooks: Sequence = (),
                 model: Union[nn.Module, Dict[str, Any]] = {},
                 checkpoint: Dict[str, Any] = {},
                 **options: Any) -> Runner:
    """MMEngine's runner of a training on a CPU.

    Args:
        work_dir (Path): Its work folder.
        loader (dict): Fields of the data loader, with the dataset.
        hooks (Sequence): The custom hooks. Defaults to none.
        model (nn.Module | dict): A model, or fields of
            :func:`micro_config`. Defaults to none.
        checkpoint (dict): Fields of the checkpoint hook. Defaults to none.
        options: Other arguments of the runner, in place of those here.
    """
    if isinstance(model, dict):
        model = micro_config(
            **dict(dict(data_preprocessor=PREPROCESSOR), **model))
    return Runner(**dict(
        dict(
            model=model,
            work_dir=str(work_dir),
            # Runs of one process that share a name share their history.
            experiment_name=uuid.uuid4().hex,
            default_scope='mmpretrain',
            train_dataloader=dict(
                dict(
                    batch_size=4,
                    num_workers=0,
                    sampler=dict(type='DefaultSampler', shuffle=True),
                    collate_fn=dict(type='default_collate')), **loader),
            optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.01)),
            default_hooks=dict(
                checkpoint=dict(
                    dict(type='greenmim.SafeCheckpointHook'), **checkpoint)),
            custom_hooks=list(hooks),
            randomness=dict(seed=0),
            log_level='ERROR'),
        **options))


def scalars_of(folder: Path) -> List[Dict[str, Any]]:
    """What the runs in a folder logged, from the first to the last."""
    return [
        json.loads(line) for file in sorted(folder.rglob('scalars.json'))
        for line in file.read_text().splitlines()
    ]


def save_images(folder: Path,
                count: int = 4,
                size: Tuple[int, int] = (64, 64),
                colour: Union[int, Sequence[int], None] = None,
                spread: float = 20.,
                cells: Optional[int] = None,
                seed: int = 0) -> List[Path]:
    """Save random RGB images as ``0.png``, ``1.png`` and so on.

    Args:
        folder (Path): Made where it is missing.
        count (int): Number of images. Defaults to 4.
        size (tuple): Height and width. Defaults to (64, 64).
        colour (int | Sequence[int], optional): Mean of normally distributed
            noise. Defaults to None, uniform noise of all values.
        spread (float): Standard deviation around the colour. Defaults to 20.
        cells (int, optional): Number of random cells along a side, between
            which the image is interpolated, so that there is something to
            learn. Defaults to None, a value for each pixel.
        seed (int): Defaults to 0.

    Returns:
        list[Path]: The files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    shape = (*((cells, cells) if cells else size), 3)
    files = []
    for i in range(count):
        if colour is None:
            pixels = rng.integers(0, 256, shape, dtype=np.uint8)
        else:
            noise = rng.normal(colour, spread, shape)
            pixels = noise.clip(0, 255).astype(np.uint8)
        image = Image.fromarray(pixels)
        if cells:
            image = image.resize(size[::-1])
        files.append(folder / f'{i}.png')
        image.save(files[-1])
    return files


def save_classes(folder: Path,
                 colours: Sequence[Union[int, Sequence[int]]],
                 count: int = 4,
                 seed: int = 0,
                 **options: Any) -> Path:
    """Save a folder of images of each colour: ``class0``, ``class1``, ...

    Args:
        folder (Path): Where the folders are made.
        colours (Sequence): A colour for each class.
        count (int): Number of images of a class. Defaults to 4.
        seed (int): Images of another seed differ. Defaults to 0.
        options: Options of :func:`save_images`.
    """
    for i, colour in enumerate(colours):
        save_images(
            folder / f'class{i}',
            count,
            colour=colour,
            seed=100 * seed + i,
            **options)
    return folder
