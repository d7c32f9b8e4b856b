# Copyright (c) greenmim authors. All rights reserved.
"""The runs of a comparison, their results, and what all reports share."""
import itertools
import json
import shutil
import statistics
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Sequence

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.runner import Runner

from greenmim.datasets.transforms import load_of
from greenmim.engine.use_data import innermost, use_data, use_labelled
from ..results import command, environment, marked, write_json, write_marked
from .data import path_prefix, write_labels
from .frozen import evaluate_frozen
from .runs import read_config, save_backbone, seconds_per_iteration, train

# Random weights, fine-tuned as long as others, and longer by the time of a
# pre-training.
SCRATCH, LONGER = 'scratch', 'scratch, longer'
MEASURES = dict(fine_tuning='fine-tuning', linear='linear probe', knn='k-NN')
COLORS = ('#9a9a9a', '#4a4a4a', '#2a9d5c', '#2a6f97', '#e9a23b', '#c8553d')
MARK = 'comparison'  # of the generated part of a document
# Hooks that watch a run and are no part of its budget.
WATCHING = ('learning', 'learning_picture', 'run_report')
BUDGET = 240.  # seconds

Run = Callable[[], dict]
Runs = Dict[str, Callable[[str, int], dict]]  # take a method and a seed


@dataclass
class Comparison:
    """The runs of a comparison. Each leaves its result in a JSON file."""
    data: Path  # the images, a folder or a zip archive
    pretrain: Dict[str, str]  # names and configs of the pre-trainings
    finetune: str  # config of the fine-tuning, with the same backbone
    work_dir: Path
    budget: float = BUDGET  # seconds of every pre-training
    labels_per_class: Optional[int] = None  # all
    seeds: Sequence[int] = (0, 1, 2)  # each repeats all runs
    # Settings that override those of the configs.
    pretrain_options: dict = field(default_factory=dict)
    finetune_options: dict = field(default_factory=dict)
    # The same for the fine-tuning of random weights.
    scratch_options: dict = field(default_factory=dict)
    # The folder of another comparison, whose pre-trainings are used.
    pretrained: Optional[Path] = None

    methods: List[str] = field(init=False)  # all whose weights are compared
    # With labels, or else all images of the pre-trainings.
    folder: Path = field(init=False)
    labelled: bool = field(init=False, default=True)

    def runs_of(self, method: str) -> Runs:
        """The runs of every seed of a method, by name."""
        raise NotImplementedError

    def runs(self) -> Dict[str, Run]:
        """All runs, by name, each after those whose results it needs."""
        runs: Dict[str, Run] = {'speed': self.measure_speed}
        for seed in self.seeds:
            for method in self.methods:
                for name, run in self.runs_of(method).items():
                    runs[f'{method}_{seed}_{name}'] = partial(
                        run, method, seed)
        return runs

    def measure_speed(self) -> Dict[str, float]:
        """Seconds of an iteration of every pre-training."""
        return seconds_per_iteration({
            method:
            self.pretraining_config(method, 0, 'speed')
            for method in self.pretrain
        })

    def iterations(self, method: str) -> int:
        """The iterations that fit into the budget."""
        return max(1, round(self.budget / self.result('speed')[method]))

    def pretraining(self, method: str, seed: int) -> dict:
        cfg = self.pretraining_config(method, seed, 'pretraining')
        cfg.train_cfg.max_iters = self.iterations(method)
        runner, result = train(cfg)
        self.keep_backbone(runner, method, seed)
        return result

    def keep_backbone(self, runner: Runner, method: str, seed: int) -> None:
        """Write what the fine-tuning needs of a pre-training."""
        save_backbone(runner.model.backbone,
                      self.finetuning_config(SCRATCH, seed, 'pretraining'),
                      self.backbone_file(method, seed))

    def fine_tuning(self, method: str, seed: int) -> dict:
        cfg = self.finetuning_config(method, seed, 'fine_tuning')
        if method == LONGER:
            cfg.train_cfg.max_iters += self.iterations(SCRATCH)
        runner, result = train(cfg)
        return dict(result, **self.scores(runner.test()))

    def scores(self, metrics: Dict[str, float]) -> Dict[str, float]:
        """What is compared: of the metrics of a test, in percent."""
        return dict(accuracy=metrics['accuracy/top1'])

    def frozen(self, method: str, seed: int) -> dict:
        return evaluate_frozen(self.finetuning_config(method, seed, 'frozen'))

    def backbone_file(self, method: str, seed: int) -> Path:
        return self.work_dir / 'backbones' / f'{method}_{seed}.pth'

    def run_dir(self, method: str, seed: int, run: str) -> Path:
        return self.work_dir / 'runs' / f'{method}_{seed}_{run}'

    def pretraining_config(self, method: str, seed: int, run: str) -> Config:
        cfg = read_config(self.pretrain[method], self.pretrain_options, seed,
                          self.run_dir(method, seed, run))
        (use_labelled if self.labelled else use_data)(cfg, str(self.folder))
        for name in WATCHING:
            cfg.default_hooks.pop(name, None)
        # Nothing is measured on them, and other methods hold out none.
        innermost(cfg.train_dataloader).pop('held_out', None)
        return cfg

    def finetuning_config(self, method: str, seed: int, run: str) -> Config:
        """The fine-tuning with its images, labels, classes and weights."""
        options = self.finetune_options
        if method not in self.pretrain:
            options = {**options, **self.scratch_options}
        cfg = read_config(self.finetune, options, seed,
                          self.run_dir(method, seed, run))
        use_data(cfg, str(self.folder))
        images = cfg.train_dataloader.dataset
        labels = self.work_dir / 'labels' / f'{seed}.txt'
        if not labels.exists():
            write_labels(self.folder, self.labels_per_class, seed, labels,
                         load_of(images.pipeline))
        images.update(
            ann_file=str(labels.resolve()),
            data_prefix=path_prefix(self.folder))
        cfg.model.backbone.init_cfg = None
        if method in self.pretrain:
            cfg.model.backbone.init_cfg = dict(
                type='Pretrained',
                checkpoint=str(self.backbone_file(method, seed)))
        return cfg

    def settings(self) -> Dict[str, Any]:
        """What makes results comparable."""
        settings: Dict[str, Any] = dict(
            data=self.data.name,
            pretrain={
                name: Path(config).name
                for name, config in self.pretrain.items()
            },
            finetune=Path(self.finetune).name,
            budget=self.budget,
            labels_per_class=self.labels_per_class,
            pretrain_options=self.pretrain_options,
            finetune_options=self.finetune_options)
        # Work folders made before this option existed stay valid.
        if self.scratch_options:
            settings['scratch_options'] = self.scratch_options
        return settings

    def check_settings(self) -> None:
        """Refuse to add to the results of other settings."""
        file = self.work_dir / 'settings.json'
        now = self.settings()
        if not file.exists():
            write_json(now, file)
        before = json.loads(file.read_text('utf-8'))
        changed = [name for name in now if now[name] != before.get(name)]
        if changed:
            raise ValueError(
                f'expected the settings of the results in {self.work_dir}, '
                f'but {", ".join(changed)} changed; name another --work-dir')

    def take_pretrainings(self) -> None:
        """Copy what the comparison in ``pretrained`` pre-trained.

        Raises:
            ValueError: If it pre-trained on other data, for another time or
                with other settings.
        """
        if self.pretrained is None:
            return
        file = self.pretrained / 'settings.json'
        theirs, ours = json.loads(file.read_text('utf-8')), self.settings()
        differ = [
            name for name in ('data', 'pretrain', 'budget', 'pretrain_options')
            if theirs.get(name) != ours[name]
        ]
        if differ:
            raise ValueError(
                f'expected the pre-trainings of these settings in '
                f'{self.pretrained}, but {", ".join(differ)} differ; give '
                'the same or leave out --pretrained')
        for pattern in ('results/speed.json', 'results/*_pretraining.json',
                        'backbones/*.pth'):
            for source in self.pretrained.glob(pattern):
                target = self.work_dir / source.relative_to(self.pretrained)
                target.parent.mkdir(parents=True, exist_ok=True)
                if not target.exists():
                    shutil.copy(source, target)

    def result_file(self, run: str) -> Path:
        return self.work_dir / 'results' / f'{run}.json'

    def result(self, run: str) -> dict:
        return json.loads(self.result_file(run).read_text('utf-8'))

    def do_runs(self,
                minutes: float = float('inf'),
                after_each: Callable[[], None] = lambda: None) -> bool:
        """Do the runs that have no result yet; whether all have one now.

        No run starts after ``minutes``; ``after_each`` is called after each.
        """
        begin = time.monotonic()
        self.check_settings()
        self.take_pretrainings()
        runs = self.runs()
        missing = [n for n in runs if not self.result_file(n).exists()]
        for i, name in enumerate(missing):
            passed = time.monotonic() - begin
            if passed > 60 * minutes:
                print(f'stopped before {name}; the same command resumes')
                return False
            left = '' if not i else (
                f', about {passed / i * (len(missing) - i) / 60:.0f} min left')
            number = len(runs) - len(missing) + i + 1
            print(f'run {number} of {len(runs)}{left}: {name}', flush=True)
            file = self.result_file(name)
            write_json(runs[name](), file)
            print(f'written: {file}')
            after_each()
        return True

    def report(self) -> Dict[str, Any]:
        """Settings, machine and the results of all finished runs."""
        device = torch.device(get_device())
        clock = 'CPU time' if device.type == 'cpu' else 'wall-clock time'
        return dict(
            command=command(),
            environment=dict(environment(device), clock=clock),
            settings=self.settings(),
            results=[
                self.result_of(method, seed) for method in self.methods
                for seed in self.seeds if all(
                    self.result_file(f'{method}_{seed}_{name}').exists()
                    for name in self.runs_of(method))
            ])

    def result_of(self, method: str, seed: int) -> dict:
        """The results of all runs of a method with a seed."""
        result = dict(method=method, seed=seed)
        for name in self.runs_of(method):
            content = self.result(f'{method}_{seed}_{name}')
            if name == 'fine_tuning':
                result[name] = content.pop('accuracy')
                name = 'fine_tuning_run'
            result.update(content if name == 'frozen' else {name: content})
        return result


def write_report(report: dict, text: str, json_file: Path,
                 table: Path) -> None:
    """Write the results, and what a page shows of them."""
    write_json(report, json_file)
    if not table.exists():
        table.parent.mkdir(parents=True, exist_ok=True)
        table.write_text(marked('', MARK) + '\n', 'utf-8')
    write_marked(table, text, MARK)


def by_method(results: Sequence[dict]) -> Dict[str, List[dict]]:
    """The results of each method, seed by seed."""
    groups: Dict[str, List[dict]] = {}
    for result in results:
        groups.setdefault(result['method'], []).append(result)
    return groups


def over_seeds(seeds: int) -> str:
    """What a number in a table is, with as many seeds."""
    if seeds == 1:
        return 'one seed, so the spread is unknown'
    return f'mean ± standard deviation over {seeds} seeds'


def verdicts(results: Sequence[dict]) -> List[str]:
    """Sentences on what helps, and on pre-trainings that were too short."""
    groups = by_method(results)
    pretrained = [
        method for method, ones in groups.items() if 'pretraining' in ones[0]
    ]
    sentences = [_judge(groups, method) for method in pretrained]
    falling = [
        method for method in pretrained if any(
            still_falls([loss for _, loss in one['pretraining']['loss']])
            for one in groups[method] if 'loss' in one['pretraining'])
    ]
    if falling:
        sentences.append(
            'Too short to tell: at the end of its budget the loss of '
            f'{" and ".join(falling)} still falls. Give more seconds by '
            '--budget.')
    return list(filter(None, sentences))


def _judge(groups: Dict[str, List[dict]], method: str) -> str:
    """Whether fine-tuning is better from its weights than from random ones.

    It is where it is better with every seed; one seed does not tell.
    """
    scores = {
        name: {
            one['seed']: one['fine_tuning']
            for one in groups.get(name, []) if 'fine_tuning' in one
        }
        for name in (method, SCRATCH, LONGER)
    }
    parts = []
    for other in (SCRATCH, LONGER):
        gains = [
            score - scores[other][seed]
            for seed, score in scores[method].items() if seed in scores[other]
        ]
        if len(gains) < 2:
            continue
        word = 'not clearly better or worse than'
        if min(gains) > 0 or max(gains) < 0:
            word = 'better than' if min(gains) > 0 else 'worse than'
        parts.append(f'{word} "{other}"')
    if not parts:
        return ''
    return f'After fine-tuning, {method} is {" and ".join(parts)}.'


def still_falls(losses: Sequence[float]) -> bool:
    """Whether the last quarter lowered the loss by a twentieth or more.

    That is of the whole decrease from the first to the last quarter.
    """
    quarter = len(losses) // 4
    if not quarter:
        return False
    first, third, last = (
        statistics.mean(losses[i:i + quarter])
        for i in (0, len(losses) - 2 * quarter, len(losses) - quarter))
    return third - last > max(0.05 * (first - last), 0.)


def mean_and_spread(values: Sequence[float], sign: str = '') -> str:
    if not values:
        return ''
    spread = ''
    if len(values) > 1:
        spread = f' ± {statistics.stdev(values):.1f}'
    return f'{statistics.mean(values):{sign}.1f}{spread}'


def cost_cells(results: Sequence[dict]) -> List[str]:
    """Images, seconds and CPU seconds of the pre-trainings of a method."""
    runs = [result['pretraining'] for result in results]
    if runs[0].get('finished_before'):  # the same run for all seeds
        runs = runs[:1]
    return [
        f'{runs[0]["images"]:,}',
        *(mean_and_spread([run[key] for run in runs if key in run])
          for key in ('seconds', 'cpu_seconds'))
    ]


def colours_of(groups: Dict[str, List[dict]]) -> Dict[str, str]:
    return dict(zip(groups, itertools.cycle(COLORS)))


def draw_measure(ax: Axes, groups: Dict[str, List[dict]], key: str,
                 title: str) -> None:
    """Draw mean and spread of every method, and every seed beside them."""
    colours = colours_of(groups)
    values = {
        method: [result[key] for result in results]
        for method, results in groups.items() if key in results[0]
    }
    for x, (method, ys) in enumerate(values.items()):
        spread = statistics.stdev(ys) if len(ys) > 1 else 0
        style: Any = dict(color=colours[method], capsize=7, markersize=9)
        ax.errorbar(x, statistics.mean(ys), spread, fmt='o', **style)
        ax.plot([x + .2] * len(ys), ys, '.', color='black')
    ax.set_xticks(range(len(values)), list(values), rotation=25)
    ax.margins(x=.2)
    ax.set_title(title, fontsize='medium')


def save_figure(figure: Figure, file: Path) -> None:
    for ax in figure.axes:
        ax.grid(axis='y', alpha=.3)
        ax.spines[['top', 'right']].set_visible(False)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=100)
