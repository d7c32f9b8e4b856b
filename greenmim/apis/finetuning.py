# Copyright (c) greenmim authors. All rights reserved.
"""Fine-tune a pre-trained backbone to classify labelled images."""
import os
from os import PathLike
from pathlib import Path
from typing import Any, Dict, Literal, Optional, Union

import torch
from mmengine.config import Config, ConfigDict
from mmengine.device import get_device

from greenmim.engine.launch import set_defaults, set_options
from greenmim.engine.use_data import use_data
from greenmim.weights import read_state_dict
from . import settings
from .backbones import find_recipe
from .loading import Preprocess, describe, load, preprocess
from .pretraining import free_folder, train
from .runs import Run, read_run, resolve

# The paper's, and one for backbones of fewer parameters.
RECIPE = 'swin-tiny-w7_8xb96-amp-coslr-100e_in1k'
SMALL_RECIPE = 'swin-micro-w4_1xb32-coslr-30e_folder-128px'
SMALL = 10_000_000
BATCH_SIZE = 32


def finetune(run: Union[str, PathLike],
             data: str,
             *,
             out: Optional[str] = None,
             recipe: Optional[str] = None,
             epochs: Optional[int] = None,
             batch_size: int = BATCH_SIZE,
             devices: int = 1,
             precision: Literal['auto', 'fp32', 'bf16', 'fp16'] = 'auto',
             set: Optional[Dict[str, Any]] = None,
             resume: bool = False,
             overwrite: bool = False) -> Run:
    """Fine-tune a pre-trained backbone to classify labelled images.

    Classes and their number are taken from the folder: class folders, of
    which every fifth image is held out, or train/ with val/ or test/.

    Args:
        run (str | PathLike): The folder of a pre-training, a checkpoint, or
            an export.
        data (str): The folder of labelled images.
        out (str, optional): The folder for the run. Defaults to None, the
            next free one of work_dirs/RUN_finetuned_1, ...
        recipe (str, optional): Another config of a classifier, whose backbone
            is replaced: a file, or the name of one of this project's.
            Defaults to None, that of GreenMIM's Swin, or of the quick start
            for backbones of less than 10 million parameters.
        epochs (int, optional): How often each image is seen. Defaults to
            None, that of the recipe, 100 or 30.
        batch_size (int): Images in a step, on all devices together. The
            learning rate follows. Defaults to 32.
        devices (int): GPUs of this machine to train on, or processes where
            there is none. Defaults to 1.
        precision (str): Of the arithmetic. Defaults to ``'auto'``: bf16 or
            fp16 on GPUs, fp32 elsewhere.
        set (dict, optional): Any settings of the config. Defaults to None.
        resume (bool): Continue the interrupted run in OUT.
        overwrite (bool): Replace the run in OUT.

    Returns:
        Run: The folder, checkpoint, losses and accuracy of the run.

    Raises:
        FileNotFoundError: If there is no such run or image.
        FileExistsError: If OUT holds a run, and neither ``resume`` nor
            ``overwrite`` says what becomes of it.
        ValueError: If the arguments contradict each other.
    """
    if resume and overwrite:
        raise ValueError('expected one of resume and overwrite, got both')
    settings.check_positive(
        epochs=epochs, batch_size=batch_size, devices=devices)
    cfg = classifier_of(run, data, recipe)
    precision_used = settings.set_precision(cfg, precision)
    settings.set_batch_size(cfg, settings.per_device(batch_size, devices),
                            devices)
    if epochs is not None:
        settings.set_epochs(cfg, epochs)
    name = f'{Path(run).stem}_finetuned'
    folder = Path(out).expanduser() if out else free_folder(name, resume)
    cfg.resume, cfg.overwrite = resume, overwrite
    cfg.work_dir = str(folder)
    set_defaults(cfg)
    set_options(cfg, set or {})
    print(f'{cfg.model.backbone.type.split(".")[-1]} of {run}: '
          f'{settings.image_size_of(cfg)} pixels, '
          f'{cfg.model.head.num_classes} classes in {data}')
    print(f'length:  {cfg.train_cfg.max_epochs} epochs in batches of '
          f'{batch_size}')
    print(f'device:  {devices} x {get_device()}, {precision_used}')
    print(f'results: {folder}', flush=True)
    train(cfg, devices)
    done = read_run(folder)
    if done.accuracy is not None:
        print(f'accuracy: {done.accuracy:.1f} % of the held-out images')
    print(f'weights:  {done.checkpoint}', flush=True)
    return done


def classifier_of(run: Union[str, PathLike],
                  data: str,
                  recipe: Optional[str] = None) -> Config:
    """The config of a classifier that starts from a pre-trained backbone.

    Args:
        run (str | PathLike): As of :func:`finetune`, as are the others.
        data (str): The labelled images.
        recipe (str, optional): Another config. Defaults to None.

    Raises:
        FileNotFoundError: If there is no such run or image.
        ValueError: If MMEngine cannot load the weights.
    """
    backbone, transform = load(run), preprocess(run)
    with torch.inference_mode():
        size = transform.size
        image = torch.zeros(1, transform.channels, size, size)
        channels = backbone(image)[-1].shape[1]
    small = sum(p.numel() for p in backbone.parameters()) < SMALL
    cfg = Config.fromfile(
        find_recipe(recipe or (SMALL_RECIPE if small else RECIPE)))
    checkpoint = resolve(run)[1]
    if not any(
            name.startswith('backbone.')
            for name in read_state_dict(checkpoint)):
        raise ValueError(
            'expected a run, a checkpoint, or a file of `greenmim export --to '
            f'mmpretrain`, which MMEngine can load, got {checkpoint}')
    cfg.model.backbone = ConfigDict(
        describe(run)[0],
        init_cfg=dict(
            type='Pretrained',
            checkpoint=os.path.abspath(checkpoint),
            prefix='backbone.'))
    cfg.model.head.in_channels = channels
    # A short screen, which shows how far it is.
    cfg.default_hooks.setdefault('progress',
                                 dict(type='greenmim.ProgressHook'))
    use_data(cfg, data)
    _set_images(cfg, transform)
    return cfg


def _set_images(cfg: Config, transform: Preprocess) -> None:
    """Load, size and normalise images as in the pre-training."""
    size = transform.size
    for field in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        for step in cfg[field].dataset.pipeline:
            if 'Load' in step['type']:
                step.update(transform.options)
            elif step['type'] == 'ResizeEdge':
                step['scale'] = round(size * 8 / 7)
            elif 'scale' in step:
                step['scale'] = size
            elif 'crop_size' in step:
                step['crop_size'] = size
    number = cfg.data_preprocessor.get('num_classes')
    normalise = dict(transform.config)
    normalise.pop('type', None)
    cfg.data_preprocessor = ConfigDict(normalise, num_classes=number)
