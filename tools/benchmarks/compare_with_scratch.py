# Copyright (c) greenmim authors. All rights reserved.
"""Does pre-training help on your images? Compare with random weights.

The images are a folder with train/ and test/, each with a folder for every
class, or a zip archive of it. For every seed

1. each method pre-trains on all training images, without their labels, for
   as many iterations as fit into the budget (timed once, in turns);
2. its weights, and random ones, are fine-tuned for the same iterations on
   the same labelled images, and tested; random ones once more for as long as
   pre-training and fine-tuning take together;
3. the same weights, frozen, are tested by a linear probe and by k-NN.

A finished run leaves a file in WORK_DIR/results. The same command goes on
where it was stopped.
"""
import argparse
import json
import shlex
import sys
import time
from functools import partial
from pathlib import Path
from typing import Callable, Dict, Optional, Tuple

from comparison.data import class_names, find_labelled_folder, write_labels
from comparison.frozen import evaluate_frozen
from comparison.report import (LONGER, SCRATCH, draw, environment, text,
                               write_text)
from comparison.runs import fine_tune, pretrain, read_config
from comparison.speed import seconds_per_iteration
from mmengine.config import Config, DictAction

CONFIGS = Path(__file__).parents[2] / 'configs' / 'benchmarks' / 'small_images'
NAME = 'swin-micro-p2-w4_1xb64-coslr'
PRETRAININGS = {
    method: str(CONFIGS / f'{method}_{NAME}-1200i_folder-32px.py')
    for method in ('greenmim', 'simmim')
}
# Hooks that watch a run and are no part of its budget.
WATCHING = ('learning', 'run_report')


def parse_args() -> argparse.Namespace:
    return finish_parsing(make_parser(__doc__))


def make_parser(description: Optional[str]) -> argparse.ArgumentParser:
    """The arguments of all comparisons of pre-trainings."""
    parser = argparse.ArgumentParser(
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('data', type=Path, help='the folder or zip archive')
    parser.add_argument(
        '--pretrain',
        nargs='*',
        metavar='NAME=CONFIG',
        default=PRETRAININGS.items(),
        type=name_and_config,
        help='pre-training configs (default: those of a Swin for images of '
        '32 px in configs/benchmarks/small_images that the page of this tool '
        'shows)')
    parser.add_argument(
        '--finetune',
        metavar='CONFIG',
        default=str(CONFIGS / f'{NAME}-300i_folder-32px.py'),
        help='config of the fine-tuning, with the same backbone')
    parser.add_argument(
        '--budget',
        type=float,
        default=240,
        help='seconds of every pre-training, without a GPU of CPU time, so '
        'that a shared machine does no harm (default: %(default)s)')
    parser.add_argument(
        '--labels-per-class',
        type=int,
        metavar='N',
        help='labelled images of every class (default: all)')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    parser.add_argument(
        '--work-dir', type=Path, default=Path('work_dirs/compare'))
    parser.add_argument(
        '--minutes',
        type=float,
        default=float('inf'),
        help='start no run after so many minutes; the same command goes on')
    parser.add_argument(
        '--json', type=Path, help='default: WORK_DIR/comparison.json')
    parser.add_argument(
        '--table',
        type=Path,
        help='Markdown file, whose part between the marked lines is replaced '
        'if it exists (default: WORK_DIR/comparison.md)')
    parser.add_argument(
        '--plot', type=Path, help='default: WORK_DIR/comparison.png')
    for part in ('pretrain', 'finetune'):
        parser.add_argument(
            f'--{part}-options',
            nargs='+',
            action=DictAction,
            default={},
            metavar='KEY=VALUE',
            help=f'override settings of the {part} config(s)')
    return parser


def finish_parsing(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Parse, and name the files that are not named."""
    args = parser.parse_args()
    args.pretrain = dict(args.pretrain)
    for name in ('json', 'table', 'plot'):
        suffix = dict(json='json', table='md', plot='png')[name]
        if getattr(args, name) is None:
            setattr(args, name, args.work_dir / f'comparison.{suffix}')
    return args


def name_and_config(text: str) -> Tuple[str, str]:
    name, _, config = text.partition('=')
    if not config or name in (SCRATCH, LONGER):
        raise argparse.ArgumentTypeError(
            f'expected NAME=CONFIG with a name other than {SCRATCH!r} and '
            f'{LONGER!r}, got {text!r}')
    return name, config


class Comparison:
    """The runs of a comparison. Each returns what is worth keeping.

    Args:
        args (argparse.Namespace): The arguments of the tool.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.folder = find_labelled_folder(args.data, args.work_dir / 'data')
        self.images = self.folder / 'train'
        self.num_classes = len(class_names(self.folder))
        self.methods = [SCRATCH, LONGER, *args.pretrain]

    def runs(self) -> Dict[str, Callable[[], dict]]:
        """All runs, by name, each after those whose results it needs."""
        runs = {'speed': self.measure_speed}
        for seed in self.args.seeds:
            for method in self.methods:
                if method in self.args.pretrain:
                    runs[f'{method}_{seed}_pretraining'] = partial(
                        self.pretrain, method, seed)
                runs[f'{method}_{seed}_fine_tuning'] = partial(
                    self.fine_tune, method, seed)
                if method != LONGER:
                    runs[f'{method}_{seed}_frozen'] = partial(
                        self.evaluate_frozen, method, seed)
        return runs

    def result_file(self, run: str) -> Path:
        return self.args.work_dir / 'results' / f'{run}.json'

    def result(self, run: str) -> dict:
        return json.loads(self.result_file(run).read_text('utf-8'))

    def measure_speed(self) -> dict:
        """Seconds of an iteration; under scratch, of the fine-tuning."""
        return seconds_per_iteration({
            SCRATCH:
            self.classifier_config(SCRATCH, 0, 'speed'),
            **{
                method: self.pretraining_config(method, 0, 'speed')
                for method in self.args.pretrain
            }
        })

    def iterations(self, method: str) -> int:
        """The iterations that fit into the budget."""
        return max(1, round(self.args.budget / self.result('speed')[method]))

    def pretrain(self, method: str, seed: int) -> dict:
        cfg = self.pretraining_config(method, seed, 'pretraining')
        cfg.train_cfg.max_iters = self.iterations(method)
        classifier = self.classifier_config(SCRATCH, seed, 'pretraining')
        return pretrain(cfg, classifier, self.backbone_file(method, seed))

    def fine_tune(self, method: str, seed: int) -> dict:
        cfg = self.classifier_config(method, seed, 'fine_tuning')
        if method == LONGER:
            cfg.train_cfg.max_iters += self.iterations(SCRATCH)
        return fine_tune(cfg)

    def evaluate_frozen(self, method: str, seed: int) -> dict:
        return evaluate_frozen(self.classifier_config(method, seed, 'frozen'))

    def backbone_file(self, method: str, seed: int) -> Path:
        return self.args.work_dir / 'backbones' / f'{method}_{seed}.pth'

    def run_dir(self, method: str, seed: int, run: str) -> Path:
        return self.args.work_dir / 'runs' / f'{method}_{seed}_{run}'

    def pretraining_config(self, method: str, seed: int, run: str) -> Config:
        cfg = read_config(self.args.pretrain[method],
                          self.args.pretrain_options, seed,
                          self.run_dir(method, seed, run))
        cfg.train_dataloader.dataset.data_root = str(self.images)
        for name in WATCHING:
            cfg.default_hooks.pop(name, None)
        return cfg

    def classifier_config(self, method: str, seed: int, run: str) -> Config:
        """The fine-tuning with its images, labels, classes and weights."""
        labels = self.args.work_dir / 'labels' / f'{seed}.txt'
        if not labels.exists():
            write_labels(self.folder, self.args.labels_per_class, seed, labels)
        cfg = read_config(self.args.finetune, self.args.finetune_options, seed,
                          self.run_dir(method, seed, run))
        for loader in (cfg.train_dataloader, cfg.test_dataloader):
            loader.dataset.data_root = str(self.folder)
        cfg.train_dataloader.dataset.ann_file = str(labels.resolve())
        cfg.model.head.num_classes = self.num_classes
        cfg.data_preprocessor.num_classes = self.num_classes
        cfg.model.backbone.init_cfg = None
        if method in self.args.pretrain:
            cfg.model.backbone.init_cfg = dict(
                type='Pretrained',
                checkpoint=str(self.backbone_file(method, seed)))
        return cfg

    def report(self) -> dict:
        results = []
        for method in self.methods:
            for seed in self.args.seeds:
                run = f'{method}_{seed}'
                tuning = self.result(f'{run}_fine_tuning')
                result = dict(
                    method=method,
                    seed=seed,
                    fine_tuning=tuning.pop('accuracy'),
                    fine_tuning_run=tuning)
                if method != LONGER:
                    result.update(self.result(f'{run}_frozen'))
                if method in self.args.pretrain:
                    result['pretraining'] = self.result(f'{run}_pretraining')
                results.append(result)
        return dict(
            command=shlex.join(['python', *sys.argv]),
            environment=environment(),
            settings=settings(self.args),
            seconds_per_iteration=self.result('speed'),
            results=results)


def settings(args: argparse.Namespace) -> dict:
    """What makes results comparable."""
    return dict(
        data=args.data.name,
        pretrain={
            name: Path(config).name
            for name, config in args.pretrain.items()
        },
        finetune=Path(args.finetune).name,
        budget=args.budget,
        labels_per_class=args.labels_per_class,
        pretrain_options=args.pretrain_options,
        finetune_options=args.finetune_options)


def check_settings(args: argparse.Namespace) -> None:
    """Refuse to add to the results of other settings."""
    file = args.work_dir / 'settings.json'
    if not file.exists():
        write_json(settings(args), file)
    before, now = json.loads(file.read_text('utf-8')), settings(args)
    changed = [name for name in now if now[name] != before.get(name)]
    if changed:
        raise ValueError(
            f'expected the settings of the results in {args.work_dir}, but '
            f'{", ".join(changed)} changed; name another --work-dir')


def write_json(content: dict, file: Path) -> None:
    """Write a file that is there as a whole, or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_suffix('.part')
    unfinished.write_text(json.dumps(content, indent=1) + '\n', 'utf-8')
    unfinished.replace(file)


def main() -> None:
    args = parse_args()
    run_all(args, Comparison, text, draw)


def run_all(args: argparse.Namespace, kind: Callable[..., 'Comparison'],
            text: Callable[[dict], str], draw: Callable[[dict, Path],
                                                        None]) -> None:
    """Do the runs that have no result yet, then report all.

    Args:
        args (argparse.Namespace): The arguments of the tool.
        kind (Callable): Makes the comparison of them.
        text (Callable): Maps the report to the table and what explains it.
        draw (Callable): Draws the report into a file.
    """
    end = time.monotonic() + 60 * args.minutes
    check_settings(args)
    comparison = kind(args)
    for name, run in comparison.runs().items():
        file = comparison.result_file(name)
        if file.exists():
            continue
        if time.monotonic() > end:
            print(f'stopped before {name}; the same command goes on')
            return
        write_json(run(), file)
        print(f'written: {file}')
    report = comparison.report()
    write_json(report, args.json)
    write_text(text(report), args.table)
    draw(report, args.plot)
    print(f'{text(report)}\n\nwritten: {args.json}, {args.table}, {args.plot}')


if __name__ == '__main__':
    main()
