# Copyright (c) greenmim authors. All rights reserved.
"""The folder of a run: its config, checkpoint and losses."""
import argparse
import json
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple, Union

from mmengine.config import Config

from greenmim.evaluation import judge

CONFIG = 'config.py'


@dataclass(frozen=True)
class Run:
    """A run, as its folder holds it.

    Args:
        folder: The folder.
        config: Its complete config.
        checkpoint: The last checkpoint; None if there is none yet.
        losses: Loss by iteration, as often as the log has it.
        held_out_losses: The loss on fixed images with fixed masks, by
            iteration.
        verdict: Whether the run is still improving, flat, collapsing, or too
            short to tell; empty if it did not measure that.
        accuracy: Percentage of the held-out images that a fine-tuned model
            has classified right; None in a pre-training.
    """
    folder: Path
    config: Path
    checkpoint: Optional[Path]
    losses: Dict[int, float]
    held_out_losses: Dict[int, float]
    verdict: str
    accuracy: Optional[float] = None

    @property
    def loss(self) -> Optional[float]:
        """The last loss in the log."""
        return next(reversed(self.losses.values()), None)

    @property
    def held_out_loss(self) -> Optional[float]:
        """The last loss on the fixed images."""
        return next(reversed(self.held_out_losses.values()), None)

    def __fspath__(self) -> str:
        return str(self.folder)


def read_run(folder: Union[str, Path]) -> Run:
    """Read the folder of a run.

    Args:
        folder (str | Path): The folder, of ``greenmim pretrain`` or the
            ``--work-dir`` of any launcher.

    Raises:
        FileNotFoundError: If it is no folder of a run.
    """
    path = Path(folder).expanduser()
    if not path.is_dir():
        raise FileNotFoundError(
            f'expected the folder of a run, but there is no folder {path}')
    scalars = _scalars(path)
    measured = {
        step: line
        for step, line in scalars.items() if 'learning/loss' in line
    }
    config = config_of(path)
    return Run(
        path, config, _last_checkpoint(path), {
            step: line['loss']
            for step, line in scalars.items() if 'loss' in line
        }, {
            step: line['learning/loss']
            for step, line in measured.items()
        }, _verdict(config, list(measured.values())),
        next((line['accuracy/top1'] for line in reversed(scalars.values())
              if 'accuracy/top1' in line), None))


def config_of(folder: Path) -> Path:
    """The config in the folder of a run.

    Raises:
        FileNotFoundError: If there is none, or several.
    """
    if (folder / CONFIG).is_file():
        return folder / CONFIG
    configs = sorted(folder.glob('*.py'))
    if len(configs) != 1:
        raise FileNotFoundError(
            f'expected the folder of a run with its config, but {folder} '
            f'holds {len(configs)} Python files; name the config')
    return configs[0]


def resolve(run: Union[str, PathLike]) -> Tuple[Optional[Path], Path]:
    """The config and the checkpoint of a run, or of a checkpoint alone.

    Args:
        run (str | PathLike): The folder of a run or of an export for
            transformers, or a checkpoint. The config of a checkpoint is the
            one in its folder, if there is one.

    Returns:
        tuple: The config, or None if only the checkpoint describes the model;
        and the checkpoint.

    Raises:
        FileNotFoundError: If there is no such file, or the run has no
            checkpoint yet.
    """
    path = Path(run).expanduser()
    if path.is_dir():
        found = _last_checkpoint(path)
        exported = path / 'model.safetensors'
        if found is None and exported.is_file():
            return None, exported  # for transformers
        if found is None:
            raise FileNotFoundError(
                f'expected the folder of a run with a checkpoint, but {path} '
                'has none yet')
        return config_of(path), found
    if not path.is_file():
        raise FileNotFoundError(
            'expected the folder of a run, or a checkpoint, but there is no '
            f'{path}')
    try:
        return config_of(path.parent), path
    except FileNotFoundError:
        return None, path


def _last_checkpoint(folder: Path) -> Optional[Path]:
    pointer = folder / 'last_checkpoint'
    if not pointer.is_file():
        return None
    path = Path(pointer.read_text('utf-8').strip())
    # The folder may have been moved.
    return next((p for p in (folder / path.name, path) if p.is_file()), None)


def _scalars(folder: Path) -> Dict[int, dict]:
    """The logged numbers by iteration; what a resumed run repeats counts."""
    merged: Dict[int, dict] = {}
    for log in sorted(folder.glob('*/vis_data/scalars.json')):
        for line in map(json.loads, log.read_text('utf-8').splitlines()):
            merged.setdefault(line['step'], {}).update(line)
    return dict(sorted(merged.items()))


def _verdict(config: Path, lines: List[dict]) -> str:
    if not lines:
        return ''
    hooks = Config.fromfile(config).get('default_hooks') or {}
    hook = hooks.get('learning') or {}
    options = {
        name: hook[name]
        for name in ('patience', 'min_gain') if name in hook
    }
    values: List[Any] = [[
        line[f'learning/{name}'] for line in lines
        if f'learning/{name}' in line
    ] for name in ('loss', 'rank', 'spread', 'change')]
    verdict = judge(*values, **options)
    return f'{verdict.word} ({verdict.reason})'


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what :func:`config_and_checkpoint` reads."""
    parser.add_argument(
        'config',
        metavar='RUN',
        help='the folder of a run; or a config, with the checkpoint after it')
    parser.add_argument(
        'checkpoint',
        nargs='?',
        metavar='CHECKPOINT',
        help='a checkpoint instead of the last one of the run')


def config_and_checkpoint(
        args: argparse.Namespace,
        others: Optional[List[str]] = None) -> Tuple[str, str]:
    """The config and the checkpoint that a command line names.

    Args:
        args (argparse.Namespace): The arguments.
        others (list[str], optional): What follows the checkpoint. Where the
            run has none, what stands in its place is put in front.

    Raises:
        FileNotFoundError: If there is no such run.
        ValueError: If a config comes without a checkpoint.
    """
    run, checkpoint = args.config, args.checkpoint
    if not Path(run).expanduser().is_dir():
        if checkpoint is None:
            raise ValueError('expected the folder of a run, or a config and '
                             f'a checkpoint, got only {run}')
        return run, checkpoint
    if checkpoint is not None and others is not None and not (
            checkpoint.endswith(('.pth', '.safetensors'))):
        others.insert(0, checkpoint)
        checkpoint = None
    config, last = resolve(run)
    return str(config), checkpoint or str(last)
