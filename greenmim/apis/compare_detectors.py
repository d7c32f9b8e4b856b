# Copyright (c) greenmim authors. All rights reserved.
"""Does pre-training help a detector on your images?

    python tools/benchmarks/compare_detectors.py DATA

in the environment of MMDetection. DATA holds boxes in COCO's format,
train.json with the images in train/ and test.json (or val.json) with test/,
or as COCO has them; and, if there are any, images without labels in
unlabelled/. For every seed

1. each method pre-trains on unlabelled/, else on train/, without labels, for
   as many iterations as fit into the budget (timed once, in turns);
2. a detector with its weights, and one with random ones, is trained for the
   same iterations on the same labelled images, and tested; the one with
   random weights once more for as long as pre-training and fine-tuning take
   together.

A finished run leaves a file in WORK_DIR/results. The same command resumes
where it was stopped.
"""
import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence

from mmengine.config import Config, ConfigDict
from mmengine.runner import Runner

from greenmim.benchmarking.comparison.arguments import (make_parser, parse,
                                                        run_and_report)
from greenmim.benchmarking.comparison.base import (LONGER, SCRATCH, by_method,
                                                   over_seeds, verdicts)
from greenmim.benchmarking.comparison.coco import (TEST, TRAIN, CocoSplit,
                                                   find_split, write_few)
from greenmim.benchmarking.comparison.runs import read_config
from greenmim.benchmarking.comparison.scratch import (ScratchComparison, draw,
                                                      table)
from greenmim.benchmarking.results import origin
from greenmim.engine.use_data import innermost
from .backbones import folder_of
from .exporting import export

CONFIGS = folder_of('configs')
DETECTOR = str(CONFIGS / 'benchmarks' / 'mmdetection' /
               'atss_swin-micro-p2_fpn_1xb4-coslr-900i_coco-256px.py')
PRETRAININGS = dict(
    greenmim=str(CONFIGS / 'quickstart' /
                 'greenmim_swin-micro-p2_1xb16-coslr-1800i_folder-112px.py'))
MEASURES = dict(fine_tuning='AP50', ap='AP')


@dataclass
class DetectorComparison(ScratchComparison):
    """Detectors from pre-trained and from random weights."""
    labelled_images: Optional[int] = None  # all

    def __post_init__(self) -> None:
        top = self.data.expanduser().resolve()
        self.train, self.test = find_split(top, TRAIN), find_split(top, TEST)
        unlabelled = top / 'unlabelled'
        self.folder = (
            unlabelled if unlabelled.is_dir() else self.train.images)
        self.labelled = False  # the images that are pre-trained on
        self.methods = [SCRATCH, LONGER, *self.pretrain]

    def runs_of(self, method: str) -> dict:
        runs = super().runs_of(method)
        runs.pop('frozen', None)
        return runs

    def keep_backbone(self, runner: Runner, method: str, seed: int) -> None:
        """Export it, with the norms of the detector's maps."""
        runner.save_checkpoint(runner.work_dir, 'last.pth', by_epoch=False)
        file = self.backbone_file(method, seed)
        file.parent.mkdir(parents=True, exist_ok=True)
        export(Path(runner.work_dir, 'last.pth'), 'mmdet', out=str(file))

    def finetuning_config(self, method: str, seed: int, run: str) -> Config:
        """The detector with its images, boxes, classes and weights."""
        options = self.finetune_options
        if method not in self.pretrain:
            options = {**options, **self.scratch_options}
        cfg = read_config(self.finetune, options, seed,
                          self.run_dir(method, seed, run))
        if 'max_iters' not in cfg.train_cfg:
            raise ValueError(f'expected a detector whose training is counted '
                             f'in iterations (train_cfg.max_iters), got '
                             f'{self.finetune}')
        few = self.work_dir / 'labels' / f'{seed}.json'
        if not few.exists():
            write_few(self.train, self.labelled_images, seed, few)
        classes = self.train.classes()
        _set_images(cfg.train_dataloader, CocoSplit(few, self.train.images),
                    classes)
        _set_images(cfg.test_dataloader, self.test, classes)
        cfg.test_evaluator.ann_file = str(self.test.annotations)
        _set_classes(cfg.model, len(classes))
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
        cfg.model.backbone.init_cfg = None
        if method in self.pretrain:
            cfg.model.backbone.init_cfg = dict(
                type='Pretrained',
                checkpoint=str(self.backbone_file(method, seed)),
                prefix='backbone.')
        return cfg

    def scores(self, metrics: Dict[str, float]) -> Dict[str, float]:
        return dict(
            accuracy=100 * metrics['coco/bbox_mAP_50'],
            ap=100 * metrics['coco/bbox_mAP'])

    def settings(self) -> Dict[str, Any]:
        settings = dict(
            super().settings(), labelled_images=self.labelled_images)
        del settings['labels_per_class']
        return settings

    def result_of(self, method: str, seed: int) -> dict:
        result = super().result_of(method, seed)
        result['ap'] = result['fine_tuning_run'].pop('ap')
        return result


def _set_images(loader: ConfigDict, split: CocoSplit,
                classes: Sequence[str]) -> None:
    dataset = innermost(loader)
    dataset.update(
        data_root='',
        ann_file=str(split.annotations.resolve()),
        data_prefix=dict(img=str(split.images)),
        metainfo=dict(classes=classes))


def _set_classes(model: ConfigDict, number: int) -> None:
    """Set it in all heads, however deep, but for proposals without class."""
    for name, value in model.items():
        parts: List[Any] = value if isinstance(value, list) else [value]
        if name == 'num_classes':
            model[name] = number
        elif name not in ('backbone', 'rpn_head'):
            for part in parts:
                if isinstance(part, ConfigDict):
                    _set_classes(part, number)


def text(report: dict) -> str:
    """The table and a sentence of what it shows, and where it was measured."""
    settings, machine = report['settings'], report['environment']
    groups = by_method(report['results'])
    run = groups[SCRATCH][0]['fine_tuning_run']
    images = settings['labelled_images'] or 'all'
    longer = ''
    if LONGER in groups:
        more = groups[LONGER][0]['fine_tuning_run']['iterations']
        longer = (f', "{LONGER}" for {more}, which take the time of a '
                  'pre-training more')
    seeds = len({result['seed'] for result in report['results']})
    return (
        f'{table(report, MEASURES)}\n\nAP of boxes in percent on the test '
        f'images, {over_seeds(seeds)}; the differences are taken seed by '
        f'seed. Data: {settings["data"]}, {images} labelled images, drawn '
        f'anew for every seed. A pre-training has {settings["budget"]:.0f} s '
        f'of {machine["clock"]}. All detectors train for '
        f'{run["iterations"]} iterations{longer}. Measured on '
        f'{origin(machine)}.' +
        ''.join(f' {one}' for one in verdicts(report['results'])))


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Compare detectors from pre-trained and from random weights.

    Args:
        argv (Sequence[str], optional): The words after the program. Defaults
            to None, those of this process.

    Raises:
        FileNotFoundError: If there is no such folder or split.
        ImportError: If MMDetection is not installed.
        ValueError: If an argument does not fit.
    """
    parser = make_parser(__doc__, detection=True)
    args = parse(parser, PRETRAININGS, DETECTOR, 'work_dirs/compare_detectors',
                 argv)
    _require_mmdetection()
    run_and_report(args, DetectorComparison, text, _draw)


def _require_mmdetection() -> None:
    try:
        importlib.import_module('mmdet.apis')
    except (ImportError, AssertionError) as error:
        raise ImportError(
            'expected an environment with MMDetection and a compiled mmcv '
            '(docs/use_your_backbone.md says how to make one), but it does '
            f'not import: {error}') from error


def _draw(report: dict, file: Path) -> None:
    draw(report, file, MEASURES, 'percent')
