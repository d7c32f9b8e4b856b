# Copyright (c) greenmim authors. All rights reserved.
import argparse
from copy import deepcopy

import mmengine
from mmengine.config import Config, ConfigDict
from mmengine.evaluator import DumpResults

from greenmim.engine.launch import (add_common_arguments, build_runner,
                                    merge_common_arguments, one_line_errors,
                                    read_config)
from greenmim.weights import trusting


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Test (and evaluate) a model')
    parser.add_argument('config', help='the path of the config file')
    parser.add_argument('checkpoint', help='the path of the checkpoint')
    parser.add_argument('--out', help='the file for the results')
    parser.add_argument(
        '--out-item',
        choices=['metrics', 'pred'],
        help='what the file holds, by default the predictions')
    parser.add_argument(
        '--show', action='store_true', help='show the results in a window')
    parser.add_argument('--show-dir', help='the folder for pictures of them')
    parser.add_argument(
        '--interval',
        type=int,
        default=1,
        help='show or save every n-th result')
    parser.add_argument(
        '--wait-time',
        type=float,
        default=2,
        help='seconds for which a window is shown')
    parser.add_argument(
        '--tta',
        action='store_true',
        help="use test-time augmentation: the config's `tta_model` and "
        '`tta_pipeline`, else the mean score of an image and its mirror image')
    add_common_arguments(parser)
    args = parser.parse_args()
    if args.out_item is not None and args.out is None:
        parser.error('--out-item expects --out, the file for the results')
    return args


def merge_args(cfg: Config, args: argparse.Namespace) -> None:
    if cfg.get('test_cfg') is None or cfg.get('test_dataloader') is None:
        raise ValueError(
            f'{args.config} has no `test_cfg` or no `test_dataloader`. A '
            'pre-training config has nothing to test: give one that '
            'fine-tunes the pre-trained backbone.')
    cfg.load_from = args.checkpoint
    cfg.resume = False
    if args.amp:
        cfg.test_cfg.fp16 = True
    if args.show or args.show_dir is not None:
        hook = cfg.setdefault('default_hooks', ConfigDict()).setdefault(
            'visualization', ConfigDict(type='VisualizationHook'))
        hook.update(
            enable=True,
            show=args.show,
            out_dir=args.show_dir,
            interval=args.interval,
            wait_time=args.wait_time)
    if args.tta:
        use_tta(cfg)
    merge_common_arguments(cfg, args)
    wrapper = cfg.get('model_wrapper_cfg') or {}
    if 'FullyShardedModel' in str(wrapper.get('type')):
        # All weights are those of the checkpoint, also where the file of an
        # `init_cfg` is gone.
        wrapper.initialize = False


def use_tta(cfg: Config) -> None:
    """Wrap the model and replace the pipeline for test-time augmentation."""
    pipeline = cfg.test_dataloader.dataset.pipeline
    flips = [dict(type='RandomFlip', prob=prob) for prob in (1., 0.)]
    tta = dict(
        type='TestTimeAug', transforms=[flips, [deepcopy(pipeline[-1])]])
    cfg.test_dataloader.dataset.pipeline = cfg.get('tta_pipeline',
                                                   [*pipeline[:-1], tta])
    wrapper = cfg.get('tta_model', dict(type='mmpretrain.AverageClsScoreTTA'))
    cfg.model = ConfigDict(**wrapper, module=cfg.model)


def main() -> None:
    args = parse_args()
    with one_line_errors(args.debug), trusting(args.trust_checkpoint):
        cfg = read_config(args.config)
        merge_args(cfg, args)
        runner = build_runner(cfg)
        if args.out is not None and args.out_item != 'metrics':
            runner.test_evaluator.metrics.append(DumpResults(args.out))
        metrics = runner.test()
    if args.out_item == 'metrics':
        mmengine.dump(metrics, args.out)


if __name__ == '__main__':
    main()
