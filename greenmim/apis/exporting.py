# Copyright (c) greenmim authors. All rights reserved.
"""Export the backbone of a checkpoint for the library that will use it.

Every tensor is checked. The backbone's settings, its image size and its
origin are recorded in the file, and a report with hashes and coverage is
written beside it.
"""
import argparse
from os import PathLike
from pathlib import Path
from typing import NamedTuple, Optional, Sequence, Tuple, Union

from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch import nn

from greenmim.command import add_trust_option
from greenmim.registry import MODELS
from greenmim.weights import (TARGETS, Source, add_ema_options, fit_to,
                              loading_code, model_card, read_backbone,
                              read_source, summarise, write_weights)
from .deployment import FORMATS, export_program
from .runs import resolve


class Exported(NamedTuple):
    """What :func:`export` has written."""
    file: Path
    report: Path  # in JSON: hashes, origin and coverage
    code: str  # Python that builds the backbone and loads the file


def build_from(config: str) -> Tuple[nn.Module, dict]:
    """The backbone of a config, and its part of the config."""
    cfg = Config.fromfile(config)
    scope = cfg.get('default_scope', 'mmpretrain')
    init_default_scope(scope)
    # Only its names and shapes are used, which do not need `init_cfg`.
    backbone = cfg.model.backbone.to_dict()
    model = MODELS.build({**backbone, 'init_cfg': None})
    if '.' not in backbone['type']:
        backbone['type'] = f'{scope}.{backbone["type"]}'
    return model, backbone


def export(run: Union[str, PathLike],
           to: str,
           *,
           out: Optional[str] = None,
           config: Optional[str] = None,
           window_size: Optional[Sequence[int]] = None,
           averaged: Optional[bool] = None,
           prefix: Optional[str] = None,
           image_size: Optional[Sequence[int]] = None) -> Exported:
    """Write the backbone of a run or checkpoint for another library.

    What was checked, left out and changed is printed.

    Args:
        run (str | PathLike): The folder of a run, a checkpoint of a
            pre-training, or a file that ``greenmim import`` wrote.
        to (str): Who will load the file: ``'mmpretrain'``, ``'mmdet'``,
            ``'mmseg'``, ``'timm'``, ``'transformers'`` or
            ``'safetensors'``.
        out (str, optional): The file to write, a folder for
            ``'transformers'``. Defaults to None,
            CHECKPOINT_to-LIBRARY beside the checkpoint.
        config (str, optional): Config of the pre-training, which the tensors
            must match. Defaults to None, the config in the checkpoint.
        window_size (Sequence[int], optional): Resize the bias tables, and the
            buffers of Swin V2, to this window, one for all stages or one for
            each. Defaults to None.
        averaged (bool, optional): Take the running averages (True) or the
            weights themselves (False). Defaults to None, those that MMEngine
            would load.
        prefix (str, optional): What the names of the backbone begin with in
            the file. Defaults to None, what is found.
        image_size (Sequence[int], optional): For ``'onnx'`` and
            ``'torchscript'``: the side of the images in pixels, or height and
            width. Defaults to None, that of the pre-training.

    Returns:
        Exported: The file, its report, and the Python that loads it.

    Raises:
        FileNotFoundError: If there is no such file.
        FileExistsError: If ``out`` is a file where a folder is written.
        ValueError: If a tensor is missing, unexpected or does not match.
    """
    if to in FORMATS:
        if config or window_size or prefix or averaged is not None:
            raise ValueError(
                'expected no window, config, prefix or averages with '
                f'--to {to}; export to safetensors with them first, and that '
                'file to this')
        return Exported(*export_program(run, to, out, image_size))
    if to not in TARGETS:
        raise ValueError(f'expected one of {[*TARGETS, *FORMATS]}, got {to!r}')
    if image_size:
        raise ValueError(f'expected --image-size with one of {[*FORMATS]}, '
                         f'got it with {to}, for any size')
    target = TARGETS[to]
    checkpoint = resolve(run)[1]
    path = Path(out) if out else checkpoint.with_name(
        f'{checkpoint.stem}_to-{to}{target.suffix}')
    if target.folder and path.is_file():
        raise FileExistsError(f'expected --out to be a folder, which {to} '
                              f'reads, but there is a file {path}')
    if path.suffix != target.suffix and not target.folder:
        raise ValueError(f'expected --out with the suffix {target.suffix}, '
                         f'which {to} reads, got {path}')
    model, settings = build_from(config) if config else (None, None)
    source = read_source(checkpoint, averaged, prefix)
    backbone = read_backbone(source, model=model, config=settings)
    print(backbone.coverage)
    if source.averaged:
        print('these are running averages (EMA)')
    if backbone.left_out:
        print('left out, not part of the backbone: '
              f'{summarise(backbone.left_out)}')
    backbone = fit_to(backbone, target, window_size)
    if backbone.resized:
        print(f'resized {len(backbone.resized)} bias tables to windows '
              f'{backbone.windows}')
    if backbone.dropped:
        print('also left out, since maps of several layers have no norm: '
              f'{", ".join(backbone.dropped)}')
    if backbone.added:
        print('added with weight 1 and bias 0, since pre-training does not '
              f'have them: {", ".join(backbone.added)}')
    licence = _licence_of_start(source)
    report = write_weights(path, backbone, to, source, licence=licence)
    code = loading_code(backbone, to, path.resolve(), settings,
                        model_card(source, backbone.img_size, licence))
    print(f'wrote {path}; report: {report}')
    return Exported(path, report, code)


def _licence_of_start(source: Source) -> Optional[str]:
    """The licence of the weights that a pre-training has started from."""
    start = source.training.get('started_from')
    if not isinstance(start, str) or not Path(start).is_file():
        return None
    try:
        card = read_source(Path(start)).metadata.get('card') or {}
    except ValueError:  # a file that is no longer what it was
        return None
    licence = card.get('licence')
    return licence if isinstance(licence, str) else None


def parse_args(argv: Optional[Sequence[str]],
               prog: Optional[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog, description='Export the backbone of a checkpoint to a library')
    parser.add_argument(
        'run',
        help='the folder of a run, a checkpoint, or a file that `greenmim '
        'import` wrote')
    parser.add_argument(
        '--to',
        choices=[*TARGETS, *FORMATS],
        required=True,
        help='who will load the file')
    parser.add_argument(
        '--out',
        help='the file to write, a folder for transformers; by default '
        'CHECKPOINT_to-LIBRARY beside the checkpoint')
    parser.add_argument(
        '--config',
        help='config of the pre-training, which the tensors must '
        'match; by default the config in the checkpoint')
    parser.add_argument(
        '--window-size',
        type=int,
        nargs='+',
        help='resize the bias tables, and the buffers of Swin V2, to this '
        'window, one for all stages or one for each')
    parser.add_argument(
        '--image-size',
        type=int,
        nargs='+',
        help='for onnx and torchscript: the side of the images in pixels, or '
        'height and width; by default that of the pre-training')
    add_ema_options(parser)
    add_trust_option(parser)
    return parser.parse_args(argv)


def main(argv: Optional[Sequence[str]] = None,
         prog: Optional[str] = None) -> None:
    """Export a backbone, and print how it is loaded.

    Args:
        argv (Sequence[str], optional): The words after the program. Defaults
            to None, those of this process.
        prog (str, optional): The program in its help. Defaults to None, the
            script.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If an argument does not fit.
    """
    exported = export(**vars(parse_args(argv, prog)))
    print(f'use it with\n\n{exported.code}')
