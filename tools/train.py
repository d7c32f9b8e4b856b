# Copyright (c) greenmim authors. All rights reserved.
import argparse

from mmengine.config import Config

from greenmim.engine.launch import (add_common_arguments, build_runner,
                                    merge_common_arguments, one_line_errors,
                                    read_config)
from greenmim.weights import trusting


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Train a model')
    parser.add_argument('config', help='the path of the config file')
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CHECKPOINT',
        help='resume the run that wrote this checkpoint; without a value, '
        'resume from the latest one in the work folder, if any')
    parser.add_argument(
        '--overwrite',
        action='store_true',
        help='start again in a folder that holds an earlier run, whose files '
        'are moved to replaced_1 there; without it and --resume such a folder '
        'is refused')
    parser.add_argument(
        '--no-validate',
        action='store_true',
        help='do not evaluate the model during training')
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help='scale the learning rate by the batch size of this run over the '
        "config's `auto_scale_lr.base_batch_size`")
    add_common_arguments(parser)
    return parser.parse_args()


def merge_args(cfg: Config, args: argparse.Namespace) -> None:
    if args.no_validate:
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    if args.amp:
        cfg.optim_wrapper.type = 'AmpOptimWrapper'
        cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')
    if args.resume is not None:
        cfg.resume = True
        cfg.load_from = None if args.resume == 'auto' else args.resume
    if args.overwrite:
        cfg.overwrite = True
    if args.auto_scale_lr:
        if 'base_batch_size' not in (cfg.get('auto_scale_lr') or {}):
            raise ValueError(
                '--auto-scale-lr expects `auto_scale_lr = '
                f'dict(base_batch_size=...)` in {args.config}, but got '
                f'{cfg.get("auto_scale_lr")}.')
        cfg.auto_scale_lr.enable = True
    merge_common_arguments(cfg, args)


def main() -> None:
    args = parse_args()
    with one_line_errors(args.debug), trusting(args.trust_checkpoint):
        cfg = read_config(args.config)
        merge_args(cfg, args)
        build_runner(cfg).train()


if __name__ == '__main__':
    main()
