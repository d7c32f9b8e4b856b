# Copyright (c) greenmim authors. All rights reserved.
"""Time a training step of GreenMIM against dense pre-training.

All contenders run in one process and take turns, so that what else the
machine does hits them alike. A step is zero_grad, forward, loss, backward.
The limit by token count, were everything but the matrix sizes free, is

    dense / (dense backbone * K / L + decoder)

for K of L units visible: a green step cannot be faster than the visible share
of the dense backbone and its own decoder and loss.
"""
import argparse
import copy
import json
import platform
import statistics
import time
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Callable, Dict, List, Optional, Tuple

import mmpretrain
import torch
from mmengine.config import Config, ConfigDict
from mmengine.registry import init_default_scope
from mmpretrain.registry import MODELS
from torch import Tensor, nn

from greenmim.ops import VisibleLayout, num_visible_units, random_mask
from greenmim.version import __version__

CONFIGS = Path(__file__).parents[2] / 'configs'
DEFAULT_CONFIG = 'greenmim_swin-base-w7_8xb256-amp-coslr-800e_in1k.py'
DTYPES = dict(fp32=torch.float32, bf16=torch.bfloat16, fp16=torch.float16)

# Where the time of an operator goes; what is not named is "other".
OPERATORS = {
    'matrix products': ('mm', 'addmm', 'linear', 'convolution', 'conv2d',
                        'mkldnn_convolution', 'convolution_backward'),
    'attention': ('bmm', 'baddbmm', '_softmax', '_softmax_backward_data',
                  'scaled_dot_product'),
    'gathers': ('index_select', 'index', 'index_put_', '_index_put_impl_',
                'index_add_', 'gather', 'scatter_'),
    'norms': ('native_layer_norm', 'native_layer_norm_backward'),
    'activations': ('gelu', 'gelu_backward'),
    'copies': ('copy_', 'cat', 'fill_', 'zero_'),
    'sums and products': ('add', 'add_', 'mul', 'mul_', 'sub', 'div', 'sum'),
}


@dataclass
class Contender:
    """A model with a training step, and what was measured of it."""
    name: str
    model: nn.Module
    forward: Callable[[Tensor], Tensor]
    parts: bool = False  # a part of a step, not shown as a row of its own
    seconds: List[float] = field(default_factory=list)
    optimizer_seconds: List[float] = field(default_factory=list)
    memory: int = 0
    optimizer: Optional[torch.optim.Optimizer] = None

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


def parse_args() -> argparse.Namespace:
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
        default='simmim,dense',
        help='dense contenders, of simmim (MMPretrain\'s, same architecture) '
        'and dense (the backbone alone, all tokens)')
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
        default='batch',
        help='batch, image, or both separated by a comma')
    parser.add_argument('--with-cp', action='store_true')
    parser.add_argument(
        '--optimizer',
        action='store_true',
        help='time a step of fused AdamW, too')
    parser.add_argument(
        '--breakdown',
        action='store_true',
        help='show where the time of a step goes')
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--warmup', type=int, default=1)
    parser.add_argument('--threads', type=int, help='CPU threads')
    parser.add_argument('--json', help='write the results to this file')
    args = parser.parse_args()
    args.against = [name for name in args.against.split(',') if name]
    unknown = set(args.against) - {'simmim', 'dense'}
    if unknown:
        parser.error(f'--against takes simmim and dense, got {unknown}')
    return args


def model_config(args: argparse.Namespace, path: str) -> ConfigDict:
    cfg = Config.fromfile(path)
    init_default_scope(cfg.get('default_scope', 'mmpretrain'))
    model = cfg.model
    if args.mask_ratio is not None:
        model.mask_ratio = args.mask_ratio
    if args.image_size:
        model.backbone.img_size = tuple(args.image_size * 2)[:2]
    if args.with_cp:
        model.backbone.with_cp = True
    return model


def simmim_config(model: ConfigDict) -> dict:
    """MMPretrain's SimMIM on the backbone of a GreenMIM config."""
    backbone = copy.deepcopy(model.backbone)
    windows = backbone.pop('window_size', 7)
    stages = backbone.pop('stage_cfgs', {})
    if isinstance(windows, int):
        windows = [windows] * 4
    if isinstance(stages, dict):
        stages = [stages] * 4
    # SimMIMSwinTransformer takes windows from its stages alone.
    backbone.stage_cfgs = [
        dict(stage, window_size=window)
        for stage, window in zip(stages, windows)
    ]
    backbone.type = 'mmpretrain.SimMIMSwinTransformer'
    in_channels = backbone.get('in_channels', 3)
    return dict(
        type='mmpretrain.SimMIM',
        backbone=backbone,
        neck=dict(
            type='mmpretrain.SimMIMLinearDecoder',
            in_channels=model.neck.in_channels,
            encoder_stride=32),
        head=dict(
            type='mmpretrain.SimMIMHead',
            patch_size=4,
            loss=dict(
                type='PixelReconstructionLoss',
                criterion='L1',
                channel=in_channels)))


def make_contenders(args: argparse.Namespace, cfg: ConfigDict,
                    grid: Tuple[int,
                                int], device: torch.device) -> List[Contender]:
    model = MODELS.build(cfg).to(device)
    ratio = model.mask_planner.mask_ratio
    contenders = []

    def green(scope: str) -> Callable[[Tensor], Tensor]:

        def forward(images: Tensor) -> Tensor:
            num_masks = 1 if scope == 'batch' else len(images)
            layout = VisibleLayout.from_mask(
                random_mask(num_masks, grid, ratio))
            pred = model.neck(model.backbone(images, layout), layout)
            return model.head.loss(pred, images, layout)

        return forward

    for scope in args.mask_scope.split(','):
        contenders.append(
            Contender(f'greenmim, mask per {scope}', model, green(scope)))

    layout = VisibleLayout.from_mask(random_mask(1, grid, ratio))
    latent = torch.randn(
        args.batch_size,
        layout.num_visible,
        model.neck.in_channels,
        device=device,
        requires_grad=True)

    def decoder(images: Tensor) -> Tensor:
        return model.head.loss(model.neck(latent, layout), images, layout)

    contenders.append(Contender('decoder', model, decoder, parts=True))

    def dense(images: Tensor) -> Tensor:
        return model.backbone(images)[-1].float().square().mean()

    contenders.append(
        Contender(
            'dense backbone', model, dense, parts='dense' not in args.against))

    if 'simmim' in args.against:
        simmim = MODELS.build(simmim_config(cfg)).to(device)
        cells = 32 // 4  # SimMIM's masks are given per patch

        def forward(images: Tensor) -> Tensor:
            mask = random_mask(len(images), grid, ratio)
            mask = mask.repeat_interleave(cells, 1).repeat_interleave(cells, 2)
            mask = mask.float().to(images.device)
            pred = simmim.neck(simmim.backbone(images, mask)[0])
            return simmim.head.loss(pred, images, mask)

        contenders.append(Contender('simmim', simmim, forward))
    return contenders


def synchronize(device: torch.device) -> None:
    if device.type == 'cuda':
        torch.cuda.synchronize(device)


def run_step(contender: Contender, images: Tensor, args: argparse.Namespace,
             device: torch.device) -> Tuple[float, float]:
    """One step; the seconds of the step and of the optimizer."""
    synchronize(device)
    start = time.perf_counter()
    contender.model.zero_grad(set_to_none=True)
    dtype = DTYPES[args.dtype]
    with torch.autocast(device.type, dtype, enabled=args.dtype != 'fp32'):
        loss = contender.forward(images)
    loss.backward()
    synchronize(device)
    stop = time.perf_counter()
    if contender.optimizer is not None:
        contender.optimizer.step()
        synchronize(device)
    return stop - start, time.perf_counter() - stop


def measure_memory(contender: Contender, images: Tensor,
                   args: argparse.Namespace, device: torch.device) -> int:
    """Bytes that a step needs.

    On a GPU the peak of allocated memory while only this model is there; on a
    CPU the activations kept for the backward pass.
    """
    if device.type == 'cuda':
        torch.cuda.reset_peak_memory_stats(device)
        run_step(contender, images, args, device)
        return torch.cuda.max_memory_allocated(device)
    storages: Dict[int, int] = {}
    weights = {p.data_ptr() for p in contender.model.parameters()}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        run_step(contender, images, args, device)
    return sum(storages.values())


def measure(contenders: List[Contender], images: Tensor,
            args: argparse.Namespace, device: torch.device) -> None:
    for contender in contenders:
        if args.optimizer and not contender.parts:
            contender.optimizer = torch.optim.AdamW(
                contender.model.parameters(), lr=1e-5, fused=True)
    for turn in range(args.warmup + args.rounds):
        for contender in contenders:
            step, optimizer = run_step(contender, images, args, device)
            if turn >= args.warmup:
                contender.seconds.append(step)
                contender.optimizer_seconds.append(optimizer)
    for contender in contenders:
        contender.optimizer = None
    if device.type == 'cuda':
        for contender in contenders:
            contender.model.zero_grad(set_to_none=True)
            contender.model.to('cpu')
        for contender in contenders:
            contender.model.to(device)
            contender.memory = measure_memory(contender, images, args, device)
            contender.model.zero_grad(set_to_none=True)
            contender.model.to('cpu')
        return
    for contender in contenders:
        contender.memory = measure_memory(contender, images, args, device)


def measure_planning(backbone: nn.Module, grid: Tuple[int, int], ratio: float,
                     num_masks: int) -> Tuple[float, float]:
    """Median seconds of a plan, and the share of slots that hold a token."""
    planner = backbone.make_planner()
    seconds, fill = [], []
    for _ in range(20):
        mask = random_mask(num_masks, grid, ratio)
        start = time.perf_counter()
        plan = planner(mask, grid)
        seconds.append(time.perf_counter() - start)
        fill.append(plan.fill_rate)
    return statistics.median(seconds), statistics.mean(fill)


def breakdown(contender: Contender, images: Tensor, args: argparse.Namespace,
              device: torch.device) -> Dict[str, float]:
    """Seconds of one step by kind of operator."""
    activity = (
        torch.profiler.ProfilerActivity.CUDA
        if device.type == 'cuda' else torch.profiler.ProfilerActivity.CPU)
    with torch.profiler.profile(
            activities={activity, torch.profiler.ProfilerActivity.CPU
                        }) as profiler:
        run_step(contender, images, args, device)
    kinds = {
        f'aten::{op}': kind
        for kind, ops in OPERATORS.items()
        for op in ops
    }
    seconds = dict.fromkeys([*OPERATORS, 'other'], 0.)
    for event in profiler.key_averages():
        spent = (
            event.self_device_time_total
            if device.type == 'cuda' else event.self_cpu_time_total)
        seconds[kinds.get(event.key, 'other')] += spent / 1e6
    return seconds


def environment(device: torch.device) -> Dict[str, str]:
    if device.type == 'cuda':
        hardware = torch.cuda.get_device_name(device)
    else:
        hardware = f'{_cpu_name()}, {torch.get_num_threads()} threads'
    return dict(
        hardware=hardware,
        date=date.today().isoformat(),
        python=platform.python_version(),
        torch=torch.__version__,
        mmpretrain=mmpretrain.__version__,
        greenmim=__version__)


def _cpu_name() -> str:
    try:
        lines = Path('/proc/cpuinfo').read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(':')[1] for line in lines if 'model name' in line]
    return names[0].strip() if names else platform.processor()


def benchmark(path: str, args: argparse.Namespace) -> dict:
    device = torch.device(args.device)
    cfg = model_config(args, path)
    size = cfg.backbone.get('img_size', 224)
    height, width = (size, size) if isinstance(size, int) else size
    grid = (height // 32, width // 32)
    images = torch.randn(
        args.batch_size,
        cfg.backbone.get('in_channels', 3),
        height,
        width,
        device=device)
    contenders = make_contenders(args, cfg, grid, device)
    measure(contenders, images, args, device)
    by_name = {contender.name: contender for contender in contenders}
    ratio, units = contenders[0].model.mask_planner.mask_ratio, grid[0] * grid[1]
    visible = num_visible_units(units, ratio)
    floor = (
        by_name['dense backbone'].median * visible / units +
        by_name['decoder'].median)
    reference = by_name.get('simmim', by_name['dense backbone'])

    rows = []
    for contender in contenders:
        if contender.parts:
            continue
        green = contender.name.startswith('greenmim')
        row = dict(
            name=contender.name,
            seconds=contender.median,
            fastest=min(contender.seconds),
            slowest=max(contender.seconds),
            images_per_second=args.batch_size / contender.median,
            memory_bytes=contender.memory,
            ratio=reference.median / contender.median)
        if args.optimizer:
            row['optimizer_seconds'] = statistics.median(
                contender.optimizer_seconds)
        if green:
            row['share_of_limit'] = floor / contender.median
            num_masks = args.batch_size if 'image' in contender.name else 1
            row['planning_seconds'], row['fill_rate'] = measure_planning(
                contender.model.backbone.cpu(), grid, ratio, num_masks)
            contender.model.to(device)
        rows.append(row)
    result = dict(
        config=Path(path).stem,
        image_size=[height, width],
        batch_size=args.batch_size,
        mask_ratio=ratio,
        visible_units=visible,
        units=units,
        dtype=args.dtype,
        with_cp=args.with_cp,
        limit=reference.median / floor,
        reference=reference.name,
        decoder_seconds=by_name['decoder'].median,
        rows=rows)
    if args.breakdown:
        result['breakdown'] = {
            contender.name: breakdown(contender, images, args, device)
            for contender in contenders if not contender.parts
        }
    return result


def show(result: dict, args: argparse.Namespace) -> None:
    print(f'\n{result["config"]}: {result["image_size"]} px, batch '
          f'{result["batch_size"]}, {result["dtype"]}, '
          f'{result["visible_units"]} of {result["units"]} units visible')
    memory = 'peak MiB' if args.device != 'cpu' else 'kept MiB'
    print(f'{"":24}{"step s":>9}{"(min - max)":>17}{"images/s":>10}'
          f'{memory:>10}{"ratio":>8}{"of limit":>10}{"plan ms":>9}'
          f'{"fill":>7}')
    for row in result['rows']:
        spread = f'({row["fastest"]:.3f} - {row["slowest"]:.3f})'
        line = (f'{row["name"]:24}{row["seconds"]:9.3f}{spread:>17}'
                f'{row["images_per_second"]:10.2f}'
                f'{row["memory_bytes"] / 2**20:10.0f}{row["ratio"]:7.2f}x')
        if 'share_of_limit' in row:
            line += (f'{row["share_of_limit"]:10.1%}'
                     f'{row["planning_seconds"] * 1e3:9.2f}'
                     f'{row["fill_rate"]:7.1%}')
        print(line)
    print(f'limit by token count: {result["limit"]:.2f}x against '
          f'{result["reference"]} (decoder and loss: '
          f'{result["decoder_seconds"]:.3f} s)')
    if args.optimizer:
        total = {
            row['name']: row['seconds'] + row['optimizer_seconds']
            for row in result['rows']
        }
        reference = total[result['reference']]
        for row in result['rows']:
            print(f'with fused AdamW: {row["name"]:24}'
                  f'{total[row["name"]]:9.3f} s '
                  f'{reference / total[row["name"]]:6.2f}x')
    for name, seconds in result.get('breakdown', {}).items():
        total_seconds = sum(seconds.values())
        shares = ', '.join(f'{kind} {spent / total_seconds:.1%}'
                           for kind, spent in sorted(
                               seconds.items(), key=lambda item: -item[1]))
        print(f'time of {name}: {shares}')


def main() -> None:
    args = parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    report = dict(
        environment=environment(torch.device(args.device)), results=[])
    print(', '.join(f'{k} {v}' for k, v in report['environment'].items()))
    for path in args.configs:
        result = benchmark(path, args)
        show(result, args)
        report['results'].append(result)
    if args.json:
        Path(args.json).write_text(json.dumps(report, indent=1) + '\n')
        print(f'written: {args.json}')


if __name__ == '__main__':
    main()
