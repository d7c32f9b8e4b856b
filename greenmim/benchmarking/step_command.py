# Copyright (c) greenmim authors. All rights reserved.
"""Time a training step of GreenMIM against dense pre-training.

All contenders run in one process and take turns, so that what else the
machine does hits them alike. A step is zero_grad, forward, loss, backward.
"""
import argparse
from pathlib import Path
from typing import Callable, List, Optional, Sequence

import torch
from mmengine.config import Config, ConfigDict
from mmengine.registry import init_default_scope

from greenmim.engine.allocator import grow_segments
from greenmim.ops import BACKENDS
from greenmim.options import ReadOptions, read_options
from .contenders import GROUPS, SETTINGS
from .results import finish
from .step_comparison import compare_steps, show
from .steps import DTYPES, Stepper

CONFIGS = Path(__file__).parents[2] / 'configs'
DEFAULT_CONFIG = 'greenmim_swin-base-w7_8xb256-amp-coslr-800e_in1k.py'


def parse_args(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        'configs',
        nargs='*',
        default=[str(CONFIGS / DEFAULT_CONFIG)],
        help='pre-training configs (default: Swin-B, window 7)')
    parser.add_argument(
        '--against',
        type=names_of('simmim', 'spark', 'dense'),
        help='any of simmim (MMPretrain\'s, for Swin), spark (the encoder of '
        'MMPretrain\'s SparK, for ConvNeXt) and dense (the backbone alone, '
        'all tokens); \'\' for none (default: all that suit the backbone)')
    parser.add_argument(
        '--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument(
        '--dtype',
        choices=DTYPES,
        default='fp32',
        help='precision of the arithmetic, by autocast')
    parser.add_argument('--batch-size', type=int, default=8)
    parser.add_argument(
        '--image-size', type=int, nargs='+', help='side, or height and width')
    parser.add_argument('--mask-ratio', type=float)
    parser.add_argument(
        '--mask-scope',
        type=names_of('batch', 'image'),
        default='batch',
        help='batch, image, or both separated by a comma')
    parser.add_argument(
        '--plan-ahead',
        action='store_true',
        help='draw and plan masks before the clock starts, as data-loading '
        'workers do')
    parser.add_argument(
        '--with-cp',
        action='store_true',
        help='activation checkpointing, for all contenders')
    parser.add_argument(
        '--attention',
        choices=BACKENDS,
        help='backend of the masked attention (default: the config\'s)')
    parser.add_argument(
        '--compile',
        action='store_true',
        help='compile the blocks of GreenMIM; PyTorch\'s compiler fails on '
        'CPUs for the blocks of the dense model, which shift windows')
    parser.add_argument(
        '--cudnn-benchmark',
        action='store_true',
        help='let cuDNN time its algorithms and choose the fastest, for all '
        'contenders')
    parser.add_argument(
        '--variants',
        type=variants_of,
        default=[],
        help='GreenMIM with other settings beside, separated by commas: '
        f'{", ".join([*SETTINGS, *GROUPS])}, or several of these joined by a '
        'plus sign')
    parser.add_argument(
        '--optimizer',
        action='store_true',
        help='also time a step of fused AdamW')
    parser.add_argument(
        '--breakdown',
        action='store_true',
        help='show where the time of a step goes')
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--warmup', type=int, default=1)
    parser.add_argument('--threads', type=int, help='CPU threads')
    parser.add_argument('--json', help='write the results to this file')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=ReadOptions,
        help='override settings of the configs, key=value')
    return parser.parse_args(argv)


def variants_of(text: str) -> List[str]:
    """A type of argument, see :func:`.variant_contenders`."""
    names_of(*SETTINGS, *GROUPS)(text.replace('+', ','))
    return text.split(',')


def names_of(*allowed: str) -> Callable[[str], List[str]]:
    """A type of argument: some of the names, separated by commas."""

    def split(text: str) -> List[str]:
        names = list(dict.fromkeys(filter(None, text.split(','))))
        if not set(names) <= set(allowed):
            raise argparse.ArgumentTypeError(
                f'expected names of {", ".join(allowed)}, got {text!r}')
        return names

    return split


def model_config(path: str, args: argparse.Namespace) -> ConfigDict:
    cfg = Config.fromfile(path)
    if args.cfg_options:
        cfg.merge_from_dict(read_options(args.cfg_options, cfg))
    init_default_scope(cfg.get('default_scope', 'mmpretrain'))
    model = cfg.model
    if args.mask_ratio is not None:
        model.mask_ratio = args.mask_ratio
    if args.image_size and 'img_size' in model.backbone:
        model.backbone.img_size = tuple(args.image_size * 2)[:2]
    options = dict(
        with_cp=args.with_cp,
        attn_backend=args.attention,
        compile_blocks=args.compile)
    model.backbone.update({k: v for k, v in options.items() if v})
    return model


def benchmark(path: str, args: argparse.Namespace) -> dict:
    cfg = model_config(path, args)
    size = args.image_size or cfg.backbone.get('img_size', 224)
    size = (size, size) if isinstance(size, int) else tuple(size * 2)[:2]
    channels = cfg.backbone.get('in_channels', 3)
    images = torch.randn(args.batch_size, channels, *size, device=args.device)
    step = Stepper(images, args.dtype, args.plan_ahead)
    result = compare_steps(cfg, step, args.mask_scope, args.variants,
                           args.against, args.warmup, args.rounds,
                           args.optimizer, args.breakdown)
    return dict(config=Path(path).stem, **result)


def main(argv: Optional[Sequence[str]] = None) -> None:
    args = parse_args(argv)
    grow_segments()
    torch.backends.cudnn.benchmark = args.cudnn_benchmark
    if args.threads:
        torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    results = []
    for path in args.configs:
        results.append(benchmark(path, args))
        show(results[-1])
    finish(torch.device(args.device), results, args.json)
