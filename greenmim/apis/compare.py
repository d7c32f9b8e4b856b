# Copyright (c) greenmim authors. All rights reserved.
"""Does pre-training help on your images? Compare with random weights.

    greenmim compare RUN DATA

compares the weights of a finished run; without RUN, two methods pre-train
first. DATA is a folder with train/ and test/ (or val/), each with a folder
for every class; or just these folders, of which every fifth image is tested
on; or lists of images and classes; or a zip archive of it. For every seed

1. without RUN, each method pre-trains on all training images, without their
   labels, for as many iterations as fit into the budget (timed once, in
   turns);
2. its weights, and random ones, are fine-tuned for the same iterations on
   the same labelled images, and tested; random ones once more for as long as
   pre-training and fine-tuning take together;
3. the same weights, frozen, are tested by a linear probe and by k-NN.

A finished run leaves a file in WORK_DIR/results. The same command resumes
where it was stopped.
"""
import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Optional, Sequence

from mmengine.config import ConfigDict

from greenmim.benchmarking.comparison.arguments import (make_parser, parse,
                                                        run_and_report)
from greenmim.benchmarking.comparison.base import LONGER, SCRATCH, WATCHING
from greenmim.benchmarking.comparison.runs import (save_backbone,
                                                   seconds_per_iteration)
from greenmim.benchmarking.comparison.scratch import (ScratchComparison, draw,
                                                      text)
from greenmim.command import add_trust_option
from greenmim.datasets import LabelledFolder
from . import settings
from .backbones import folder_of
from .finetuning import BATCH_SIZE, classifier_of
from .loading import load
from .runs import read_run, resolve

CONFIGS = folder_of('configs') / 'benchmarks' / 'small_images'
NAME = 'swin-micro-p2-w4_1xb64-coslr'
FINETUNING = str(CONFIGS / f'{NAME}-300i_folder-32px.py')
PRETRAININGS = {
    method: str(CONFIGS / f'{method}_{NAME}-1200i_folder-32px.py')
    for method in ('greenmim', 'simmim')
}

PRETRAINED = 'pre-trained'


@dataclass
class RunComparison(ScratchComparison):
    """The weights of a finished run, against random ones.

    Seconds are those on the clock, as in the report of a run.
    """
    run: Path = Path()

    def __post_init__(self) -> None:
        super().__post_init__()
        config, self.checkpoint = resolve(self.run)
        self.pretrain = {PRETRAINED: str(config or self.checkpoint)}
        self.methods = [SCRATCH, LONGER, PRETRAINED]
        self.cost = self._cost()
        if self.budget is None:
            self.budget = self.cost['seconds']
        if not self.budget:
            self.methods.remove(LONGER)
        self.finetune = str(self._write_fine_tuning(self.finetune))

    def _cost(self) -> Dict[str, Any]:
        """What the run has cost, by its report."""
        file = self.checkpoint.parent / 'report.json'
        if not file.is_file():
            if self.budget is None:
                raise ValueError(
                    f'expected {file} of a finished run, which says how long '
                    'it took; give the seconds by --budget')
            return dict(images=0, seconds=self.budget, finished_before=True)
        figures = json.loads(file.read_text('utf-8'))
        return dict(
            config=figures['config'],
            iterations=figures['iterations'],
            images=figures['images'],
            seconds=figures['hours'] * 3600,
            finished_before=True,
            loss=list(read_run(file.parent).losses.items()))

    def _write_fine_tuning(self, recipe: Optional[str]) -> Path:
        """The config that fine-tunes the backbone, counted in iterations."""
        cfg = classifier_of(self.run, str(self.folder), recipe)
        path = self.work_dir / Path(cfg.filename).name
        if path.exists():  # of the same comparison, that was interrupted
            return path
        images = len(LabelledFolder(str(self.folder), [], 'train'))
        if self.labels_per_class is not None:
            images = self.labels_per_class * cfg.model.head.num_classes
        batch = min(BATCH_SIZE, images)
        settings.set_batch_size(cfg, batch, 1)
        settings.set_precision(cfg, 'auto')
        if 'max_epochs' in cfg.train_cfg:
            settings.set_steps(
                cfg, math.ceil(cfg.train_cfg.max_epochs * images / batch))
        # The schedule ends with the run, however long that is.
        cfg.param_scheduler[-1].pop('end', None)
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
        for name in WATCHING:
            cfg.default_hooks.pop(name, None)
        cfg.default_hooks.checkpoint = ConfigDict(
            type='greenmim.SafeCheckpointHook', interval=-1, save_last=False)
        path.parent.mkdir(parents=True, exist_ok=True)
        cfg.dump(path)
        return path

    def measure_speed(self) -> Dict[str, float]:
        """Seconds of an iteration of the fine-tuning, on the clock."""
        cfg = self.finetuning_config(SCRATCH, 0, 'speed')
        return seconds_per_iteration({SCRATCH: cfg}, time.perf_counter)

    def pretraining(self, method: str, seed: int) -> dict:
        """Take the weights of the run, which has its own seed."""
        classifier = self.finetuning_config(SCRATCH, seed, 'pretraining')
        save_backbone(
            load(self.run), classifier, self.backbone_file(method, seed))
        return self.cost

    def settings(self) -> Dict[str, Any]:
        return dict(
            super().settings(), run=f'{self.run.name}/{self.checkpoint.name}')


def main(argv: Optional[Sequence[str]] = None,
         prog: Optional[str] = None) -> None:
    """Compare pre-trainings with random weights.

    Args:
        argv (Sequence[str], optional): The words after the program. Defaults
            to None, those of this process.
        prog (str, optional): The program in its help. Defaults to None, the
            script.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If an argument does not fit.
    """
    parser = make_parser(__doc__, with_run=True)
    parser.prog = prog or parser.prog
    add_trust_option(parser)
    args = parse(parser, PRETRAININGS, FINETUNING, 'work_dirs/compare', argv)
    kind = ScratchComparison if args.run is None else RunComparison
    run_and_report(args, kind, text, draw)
