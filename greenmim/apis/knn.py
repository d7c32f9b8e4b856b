# Copyright (c) greenmim authors. All rights reserved.
"""Classify labelled images by weighted k-NN on the frozen backbone."""
import argparse
from pathlib import Path
from typing import Optional, Sequence

import mmengine
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.model import BaseModel
from mmengine.runner import Runner

from greenmim.command import add_trust_option
from greenmim.datasets.transforms import load_of
from greenmim.engine.launch import build_model
from greenmim.evaluation import knn_accuracy, labelled_folder
from greenmim.weights import load_weights, read_source
from .runs import add_run_arguments, config_and_checkpoint


def parse_args(argv: Optional[Sequence[str]],
               prog: Optional[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog,
        description='Classify labelled images by weighted k-NN on the '
        'averaged features of the frozen backbone',
        formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    add_run_arguments(parser)
    parser.add_argument(
        '--data',
        required=True,
        help='folder that holds `train` and `val` (or `test`) with a folder '
        'for every class, or the class folders, of which every fifth image '
        'is then classified; or lists of images and classes, in it or itself')
    parser.add_argument(
        '--k',
        type=int,
        help='neighbours that vote; without it 20, or all labelled images if '
        'they are fewer')
    parser.add_argument(
        '--temperature',
        type=float,
        default=0.07,
        help='the smaller, the more the nearest neighbours weigh')
    parser.add_argument(
        '--size',
        type=int,
        help="side of the images in pixels; without it the backbone's "
        '`img_size`')
    parser.add_argument(
        '--batch-size', type=int, default=64, help='images a batch')
    parser.add_argument(
        '--num-workers', type=int, default=4, help='data-loading workers')
    parser.add_argument('--device', default=get_device(), help='cpu, cuda, ..')
    parser.add_argument(
        '--out', type=Path, default=Path('knn.json'), help='file to write')
    add_trust_option(parser)
    args = parser.parse_args(argv)
    args.config, args.checkpoint = config_and_checkpoint(args)
    return args


def load_model(cfg: Config, checkpoint: str) -> BaseModel:
    """Build the model of a config, its backbone from a checkpoint."""
    model = build_model(cfg)
    source = read_source(Path(checkpoint))
    load_weights(model.backbone, source.backbone, source.path, 'backbone',
                 source.others)
    return model


def main(argv: Optional[Sequence[str]] = None,
         prog: Optional[str] = None) -> None:
    """Classify by k-NN, print and write the accuracy.

    Args:
        argv (Sequence[str], optional): The words after the program. Defaults
            to None, those of this process.
        prog (str, optional): The program in its help. Defaults to None, the
            script.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If an argument does not fit.
    """
    args = parse_args(argv, prog)
    cfg = Config.fromfile(args.config)
    model = load_model(cfg, args.checkpoint).to(args.device)
    size = args.size or cfg.model.backbone.get('img_size', 224)
    channels = cfg.model.backbone.get('in_channels', 3)
    loader = cfg.get('train_dataloader') or {}
    load = load_of(loader.get('dataset', {}).get('pipeline', []))
    bank, queries = (
        Runner.build_dataloader(
            dict(
                dataset=dataset,
                batch_size=args.batch_size,
                num_workers=args.num_workers,
                sampler=dict(type='DefaultSampler', shuffle=False),
                collate_fn=dict(type='default_collate')))
        for dataset in labelled_folder(args.data, size, channels, load))
    if args.k is None:
        args.k = min(20, len(bank.dataset))
    accuracy = knn_accuracy(model, bank, queries, args.k, args.temperature)
    results = dict(
        vars(args),
        out=str(args.out),
        size=size,
        classes=len(bank.dataset.CLASSES),
        labelled=len(bank.dataset),
        classified=len(queries.dataset),
        left_out=len(bank.dataset.left_out) + len(queries.dataset.left_out),
        **accuracy)
    print(
        f'{results["classified"]} images of {results["classes"]} classes, '
        f'by {results["labelled"]} labelled ones; left out, since they cannot '
        f'be read: {results["left_out"]}')
    for name, value in accuracy.items():
        print(f'{name} {value:.2f} %')
    args.out.parent.mkdir(parents=True, exist_ok=True)
    mmengine.dump(results, args.out, indent=2)
    print(f'Written to {args.out}')
