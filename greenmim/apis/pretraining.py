# Copyright (c) greenmim authors. All rights reserved.
"""Pre-train on a folder of images."""
import json
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from shlex import quote
from typing import Any, Dict, Literal, Optional, Union

from mmengine.config import Config
from mmengine.device import get_device
from mmengine.registry import init_default_scope

from greenmim.engine.hooks.run_folder_hook import check_run_folder, results_in
from greenmim.engine.launch import (build_runner, read_config, set_defaults,
                                    set_options)
from greenmim.errors import ProcessFailed
from greenmim.registry import MODELS
from greenmim.weights import check_fitting, is_trusting, read_state_dict
from . import settings
from .backbones import find_recipe, folder_of, recipe_of
from .runs import CONFIG, Run, read_run, resolve

WARMUP, STEPS = 2, 5
# A shorter run is over as soon as it has been forecast.
WORTH_A_FORECAST = 100
BATCH_SIZE = 32  # without a GPU


def pretrain(data: str,
             *,
             out: Optional[str] = None,
             backbone: str = 'swin-tiny',
             recipe: Optional[str] = None,
             epochs: Optional[float] = None,
             steps: Optional[int] = None,
             hours: Optional[float] = None,
             image_size: Optional[int] = None,
             batch_size: Union[int, Literal['auto'], None] = None,
             mask_ratio: Optional[float] = None,
             target: Optional[Literal['pixel', 'norm-pixel', 'low-frequency',
                                      'hog']] = None,
             weights: Optional[str] = None,
             devices: int = 1,
             precision: Literal['auto', 'fp32', 'bf16', 'fp16'] = 'auto',
             set: Optional[Dict[str, Any]] = None,
             resume: bool = False,
             overwrite: bool = False) -> Run:
    """Pre-train a backbone on a folder of images, without labels.

    The folder is searched recursively. What is not given is chosen by the
    number of images and the machine, and printed. ``OUT/config.py`` is the
    complete config of the run: ``mim train greenmim OUT/config.py`` trains
    with the same losses.

    Args:
        data (str): The folder of images, or a zip or tar archive or LMDB.
        out (str, optional): The folder for the run. Defaults to None, the
            next free one of work_dirs/BACKBONE_1, work_dirs/BACKBONE_2, ...
        backbone (str): Which one, see ``greenmim recipes``. Defaults to
            ``'swin-tiny'``.
        recipe (str, optional): Train by this config instead: a file, or the
            name of one of this project's. Defaults to None, that of the
            backbone.
        epochs (float, optional): How often each image is seen. Defaults to
            None, which depends on the number of images: 1,600 times for
            1,000, half as often for ten times as many.
        steps (int, optional): The length in iterations, instead of epochs.
            Defaults to None.
        hours (float, optional): The length in hours, measured at the start.
            Defaults to None.
        image_size (int, optional): Side of the images in pixels, a multiple
            of the mask unit. Defaults to None, that of the recipe.
        batch_size (int | str, optional): Images in a step, on all devices
            together. ``'auto'``: as many as fit into the memory. The learning
            rate follows. Defaults to None, 32 on a CPU, on GPUs that of the
            recipe if it fits.
        mask_ratio (float, optional): Share of each image that is masked.
            Defaults to None, that of the recipe.
        target (str, optional): What is predicted of masked units. Defaults
            to None, the target of the recipe.
        weights (str, optional): Start from the weights of this checkpoint or
            run, or of a file that ``greenmim import`` wrote, with its
            decoder where it has one of the same shape. A line says what is
            loaded and what not. Defaults to None, random weights.
        devices (int): GPUs of this machine to train on, or processes where
            there is none. Defaults to 1.
        precision (str): Of the arithmetic. Defaults to ``'auto'``: bf16 or
            fp16 on GPUs, fp32 elsewhere.
        set (dict, optional): Any settings of the config, such as
            ``model.mask_scope=image``. Defaults to None.
        resume (bool): Continue the interrupted run in OUT.
        overwrite (bool): Replace the run in OUT.

    Returns:
        Run: The folder, checkpoint, losses and verdict of the run.

    Raises:
        FileNotFoundError: If there are no such images, recipe or weights.
        FileExistsError: If OUT holds a run, and neither ``resume`` nor
            ``overwrite`` says what becomes of it.
        ValueError: If the arguments contradict each other.
        RuntimeError: If a process of several devices fails.
    """
    if sum(length is not None for length in (epochs, steps, hours)) > 1:
        raise ValueError('expected one of epochs, steps and hours, got more')
    if resume and overwrite:
        raise ValueError('expected one of resume and overwrite, got both')
    settings.check_positive(
        epochs=epochs,
        steps=steps,
        hours=hours,
        batch_size=batch_size,
        devices=devices)
    if isinstance(batch_size, str) and batch_size != 'auto':
        raise ValueError("expected --batch-size with a number or 'auto', got "
                         f'{batch_size!r}')
    if mask_ratio is not None and not 0 < mask_ratio < 1:
        raise ValueError('expected --mask-ratio between 0 and 1, such as '
                         f'0.75, got {mask_ratio:g}')
    data = os.fspath(data)
    cfg = recipe_of(backbone) if recipe is None else read_config(
        str(find_recipe(recipe)))
    name = backbone if recipe is None else Path(recipe).stem
    images, held_out = settings.set_data(cfg, data)
    if image_size is not None:
        settings.set_image_size(cfg, image_size)
    if mask_ratio is not None:
        cfg.model.mask_ratio = mask_ratio
    if target is not None:
        settings.set_target(cfg, target)
    if weights is not None:
        cfg.load_from = os.path.abspath(resolve(weights)[1])
    precision_used = settings.set_precision(cfg, precision)
    folder = Path(out).expanduser() if out else free_folder(name, resume)
    if not (resume or overwrite):
        check_run_folder(folder)  # before anything is measured
    cfg.resume, cfg.overwrite = resume, overwrite
    cfg.work_dir = str(folder)
    if resume and weights is not None:
        # Of the two, MMEngine would resume from the weights.
        cfg.resume = bool(results_in(folder))
        if cfg.resume:
            cfg.load_from = None

    # A resumed run keeps what was measured when it began.
    before = folder / CONFIG
    if resume and before.is_file():
        old = Config.fromfile(before)
        if not old.train_dataloader.dataset.get('held_out'):
            images, held_out = images + held_out, 0  # see `keep_held_out`
        if not isinstance(batch_size, int):
            batch_size = old.train_dataloader.batch_size * devices
        if epochs is None and steps is None:
            steps, hours = old.train_cfg.max_iters, None

    settings.set_batch_size(cfg, 8, devices)
    if isinstance(batch_size, int):
        each = settings.per_device(batch_size, devices)
    elif batch_size is None and get_device() == 'cpu':
        each = max(1, min(BATCH_SIZE, images) // devices)
    else:
        each = _largest_batch(cfg, set, max(1, images // devices))
        if batch_size is None:
            recommended = cfg.get('auto_scale_lr',
                                  {}).get('base_batch_size', each * devices)
            each = min(each, max(1, recommended // devices))
    settings.set_batch_size(cfg, each, devices)
    batch = each * devices

    if steps is None:
        if epochs is None:
            epochs = settings.usual_epochs(images)
        steps = max(1, math.ceil(epochs * images / batch))
    figures: Dict[str, Any] = {}
    if hours is not None or (steps >= WORTH_A_FORECAST and not resume):
        figures = _forecast(cfg, set, 'time')
        if hours is not None:
            steps = max(1, int(hours * 3600 / figures['step_seconds']))
    settings.set_steps(cfg, steps)
    set_defaults(cfg)
    set_options(cfg, set or {})

    print(f'{name}: {settings.image_size_of(cfg)} pixels, '
          f'{cfg.model.mask_ratio:.0%} masked, {Path(cfg.filename).stem}')
    kept = f', and {held_out} held out' * bool(held_out)
    print(f'data:    {images} images in {data}{kept}')
    print(f'length:  {cfg.train_cfg.max_iters} iterations of {batch} images, '
          f'{cfg.train_cfg.max_iters * batch / images:.3g} epochs')
    print(f'device:  {devices} x {get_device()}, {precision_used}')
    if figures:
        seconds = figures['step_seconds'] * cfg.train_cfg.max_iters
        print(f'time:    about {_duration(seconds)}, '
              f'{figures["peak_memory"] / 2**30:.1f} GiB of memory')
    if cfg.load_from:
        _check_weights(cfg)
    print(f'results: {folder}', flush=True)
    train(cfg, devices)
    run = read_run(folder)
    if run.verdict:
        print(f'verdict: {run.verdict}')
    print(f'weights: {run.checkpoint}')
    print(
        f'next:    greenmim reconstruct {quote(str(folder))} '
        f'{quote(data)}\n         greenmim export {quote(str(folder))} '
        '--to mmdet',
        flush=True)
    return run


def _check_weights(cfg: Config) -> None:
    """Refuse a ``load_from`` before the run begins and its folder is made."""
    init_default_scope(cfg.get('default_scope', 'mmpretrain'))
    expected = MODELS.build(cfg.model).state_dict()
    given = read_state_dict(cfg.load_from)
    lost = {
        name
        for name, tensor in expected.items()
        if name not in given or given[name].shape != tensor.shape
    }
    check_fitting(list(expected), lost, list(given), cfg.load_from)


def free_folder(name: str, resume: bool) -> Path:
    """The next free folder; the last one in use to resume."""
    number = 1
    while Path('work_dirs', f'{name}_{number}').exists():
        number += 1
    if resume and number > 1:
        number -= 1
    return Path('work_dirs', f'{name}_{number}')


def _duration(seconds: float) -> str:
    minutes = seconds / 60
    if minutes >= 72 * 60:
        return f'{minutes / 60 / 24:.0f} days'
    return f'{minutes / 60:.1f} hours' if minutes >= 90 else (
        f'{minutes:.0f} minutes' if minutes >= 2 else f'{seconds:.0f} seconds')


def _write(cfg: Config, folder: str) -> Path:
    """Write a config under the name that it will have in the run's folder."""
    path = Path(folder) / CONFIG
    cfg.dump(path)
    return path


def _forecast(cfg: Config, options: Optional[Dict[str, Any]],
              what: str) -> Dict[str, Any]:
    """Measure some steps, in a process that leaves nothing behind here."""
    cfg = Config(cfg.to_dict())
    settings.set_steps(cfg, WARMUP + STEPS + 1)
    set_defaults(cfg)
    set_options(cfg, options or {})
    with tempfile.TemporaryDirectory() as folder:
        path, result = _write(cfg, folder), Path(folder) / 'forecast.json'
        _run([
            '-m', 'greenmim', 'forecast',
            str(path), '--only', what, '--warmup',
            str(WARMUP), '--steps',
            str(STEPS), '--json',
            str(result)
        ])
        return json.loads(result.read_text('utf-8'))


def _largest_batch(cfg: Config, options: Optional[Dict[str, Any]],
                   images: int) -> int:
    """As many images as fit into the memory of a device, in eights."""
    largest = _forecast(cfg, options, 'batch')['largest_batch_size']
    if largest is None:
        raise ValueError('the forecast did not find how many images fit into '
                         'the memory; give --batch-size')
    largest = min(largest, images)
    return largest if largest < 8 else largest - largest % 8


def _run(arguments: list) -> None:
    """Run Python in a process that finds this package.

    Raises:
        ProcessFailed: If it fails, with the end of what it printed.
    """
    root = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(filter(None, [root, os.environ.get('PYTHONPATH')]))
    done = subprocess.run([sys.executable, '-W', 'ignore', *arguments],
                          env=dict(os.environ, PYTHONPATH=path),
                          stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT,
                          text=True)
    if done.returncode:
        last = '\n'.join(done.stdout.splitlines()[-20:])
        killed = ' (killed, for lack of memory?)' * (done.returncode == -9)
        raise ProcessFailed(f'{" ".join(arguments[:3])} failed with code '
                            f'{done.returncode}{killed}:\n{last}')


def train(cfg: Config, devices: int) -> None:
    """Start the runner that ``mim train greenmim`` starts."""
    with tempfile.TemporaryDirectory() as folder:
        # The runner writes the config into the folder of the run.
        path = _write(cfg, folder)
        if devices == 1:
            cfg = Config.fromfile(path)
            cfg.launcher = 'none'
            os.environ.setdefault('LOCAL_RANK', '0')
            build_runner(cfg).train()
            return
        root = str(Path(__file__).resolve().parents[2])
        paths = filter(None, [root, os.environ.get('PYTHONPATH')])
        command = [
            sys.executable, '-m', 'torch.distributed.run', '--standalone',
            f'--nproc_per_node={devices}',
            str(folder_of('tools') / 'train.py'),
            str(path), '--launcher', 'pytorch',
            *['--trust-checkpoint'] * is_trusting()
        ]
        # Where they are not set, MMEngine sets them alike, with a warning.
        threads = dict(OMP_NUM_THREADS='1', MKL_NUM_THREADS='1')
        done = subprocess.run(
            command,
            env={
                **threads,
                **os.environ, 'PYTHONPATH': os.pathsep.join(paths)
            })
        if done.returncode:
            raise ProcessFailed(
                f'one of {devices} processes failed, see above')
