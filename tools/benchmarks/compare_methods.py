# Copyright (c) greenmim authors. All rights reserved.
"""What does a method cost, and what does it learn in the same time?

Each config pre-trains on one folder of images, or a zip archive of it, for
the same budget, and the tool reports its speed, memory and loss. If the
folder holds train/ and test/, each with a folder for every class, it
pre-trains on train/, and the frozen weights are tested by a linear probe and
by k-NN beside random ones, with --fine-tuning also fine-tuned.

A finished run leaves a file in WORK_DIR/results. The same command goes on
where it was stopped.
"""
import argparse
import shlex
import sys
from functools import partial
from pathlib import Path
from typing import Callable, Dict

from compare_with_scratch import (CONFIGS, NAME, PRETRAININGS, Comparison,
                                  finish_parsing, make_parser, run_all,
                                  settings)
from comparison.data import labelled_part, unpack
from comparison.memory import memory_of_step
from comparison.methods_report import draw, text
from comparison.report import SCRATCH, environment
from comparison.runs import train
from comparison.speed import seconds_per_iteration

METHODS = {
    **PRETRAININGS, 'fastmim':
    str(CONFIGS / f'fastmim_{NAME}-1200i_folder-24px.py'),
    'green x fast':
    str(CONFIGS / f'greenmim-fast_{NAME}-1200i_folder-24px.py')
}


def parse_args() -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument(
        '--fine-tuning',
        action='store_true',
        help='fine-tune all weights as well, where there are labels')
    parser.set_defaults(
        pretrain=METHODS.items(), work_dir=Path('work_dirs/compare_methods'))
    return finish_parsing(parser)


class MethodComparison(Comparison):
    """The runs of a comparison, of which labels decide.

    Args:
        args (argparse.Namespace): The arguments of the tool.

    Raises:
        ValueError: If images without labels shall be fine-tuned on.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        folder = unpack(args.data, args.work_dir / 'data')
        self.labelled = labelled_part(folder) is not None
        if self.labelled:
            super().__init__(args)
            self.methods = [SCRATCH, *args.pretrain]
        elif args.fine_tuning:
            raise ValueError(
                'expected train/ and test/ with a folder for every class in '
                f'{args.data}, since --fine-tuning needs labels; leave it out')
        else:
            self.args = args
            self.images = folder.resolve()
            self.methods = list(args.pretrain)

    def runs(self) -> Dict[str, Callable[[], dict]]:
        """All runs, by name, each after those whose results it needs."""
        runs: Dict[str, Callable[[], dict]] = {'speed': self.measure_speed}
        for method in self.args.pretrain:
            runs[f'{method}_memory'] = partial(self.measure_memory, method)
        for seed in self.args.seeds:
            for method in self.methods:
                for name, run in self.runs_of(method).items():
                    runs[f'{method}_{seed}_{name}'] = partial(
                        run, method, seed)
        return runs

    def runs_of(self, method: str) -> Dict[str, Callable[..., dict]]:
        """The runs of every seed of a method."""
        runs: Dict[str, Callable[..., dict]] = {}
        if method != SCRATCH:
            runs['pretraining'] = self.pretrain
        if self.labelled:
            runs['frozen'] = self.evaluate_frozen
        if self.args.fine_tuning:
            runs['fine_tuning'] = self.fine_tune
        return runs

    def measure_speed(self) -> dict:
        """Seconds of an iteration."""
        return seconds_per_iteration({
            method:
            self.pretraining_config(method, 0, 'speed')
            for method in self.args.pretrain
        })

    def measure_memory(self, method: str) -> dict:
        """Bytes of a training step."""
        cfg = self.pretraining_config(method, 0, 'memory')
        return dict(memory=memory_of_step(cfg))

    def pretrain(self, method: str, seed: int) -> dict:
        if self.labelled:
            return super().pretrain(method, seed)
        cfg = self.pretraining_config(method, seed, 'pretraining')
        cfg.train_cfg.max_iters = self.iterations(method)
        return train(cfg)[1]

    def report(self) -> dict:
        speed, methods = self.result('speed'), {}
        for method in self.args.pretrain:
            cfg = self.pretraining_config(method, 0, 'speed')
            methods[method] = dict(
                seconds_per_iteration=speed[method],
                images_per_second=cfg.train_dataloader.batch_size /
                speed[method],
                **self.result(f'{method}_memory'))
        return dict(
            command=shlex.join(['python', *sys.argv]),
            environment=environment(),
            settings=settings(self.args),
            methods=methods,
            results=[
                self.result_of(method, seed) for method in self.methods
                for seed in self.args.seeds
            ])

    def result_of(self, method: str, seed: int) -> dict:
        """What the runs of a seed of a method have left."""
        result = dict(method=method, seed=seed)
        parts = {
            name: self.result(f'{method}_{seed}_{name}')
            for name in self.runs_of(method)
        }
        result.update(parts.pop('frozen', {}))
        if 'fine_tuning' in parts:
            result['fine_tuning_run'] = parts.pop('fine_tuning')
            result['fine_tuning'] = result['fine_tuning_run'].pop('accuracy')
        return dict(result, **parts)


def main() -> None:
    run_all(parse_args(), MethodComparison, text, draw)


if __name__ == '__main__':
    main()
