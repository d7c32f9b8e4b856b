# Copyright (c) greenmim authors. All rights reserved.
"""Pre-train on a folder, extract the backbone, draw what was learned.

``tools/quickstart.sh`` calls it after setting up the environment.
"""
import argparse
import contextlib
import itertools
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

from mmengine.config import Config
from mmengine.device import get_device
from mmengine.runner import find_latest_checkpoint

from greenmim.datasets import ImageFolder, LoadImage

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ROOT / 'tools'
CONFIGS = ROOT / 'configs' / 'quickstart'
NAME = 'greenmim_swin-micro-p2_1xb16-coslr-1800i'


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog='quickstart.sh',
        description='Pre-train a small Swin with GreenMIM',
        usage='%(prog)s [IMAGE_FOLDER] [KEY=VALUE ...] [--work-dir DIR]')
    parser.add_argument('arguments', nargs='*', help=argparse.SUPPRESS)
    parser.add_argument(
        '--work-dir',
        type=Path,
        default=ROOT / 'work_dirs' / 'quickstart',
        help='where the numbered folder of the run is made')
    args = parser.parse_args()
    is_option = ['=' in argument for argument in args.arguments]
    args.folder = None
    if is_option and not is_option[0]:
        args.folder = Path(args.arguments.pop(0)).expanduser()
    args.options = args.arguments
    wrong = [option for option in args.options if '=' not in option]
    if wrong:
        parser.error(f'expected KEY=VALUE after the folder, got {wrong[0]!r}')
    return args


def new_run_folder(work_dir: Path) -> Path:
    """Make the next free one of run_1, run_2, ..."""
    for number in itertools.count(1):
        folder = work_dir / f'run_{number}'
        with contextlib.suppress(FileExistsError):
            folder.mkdir(parents=True)
            return folder


def run_tool(tool: str, *arguments: object) -> None:
    """Run a tool, print what it prints, exit if it fails."""
    command = [sys.executable, '-u', str(TOOLS / tool), *map(str, arguments)]
    path = os.pathsep.join([str(ROOT), *filter(None, sys.path)])
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=dict(os.environ, PYTHONPATH=path, PYTHONWARNINGS='ignore'))
    for line in process.stdout:
        print(line, end='', flush=True)
    if process.wait():
        sys.exit(f'\n{tool} failed, see above')


def main() -> None:
    args = parse_args()
    if args.folder is None:
        cfg = Config.fromfile(CONFIGS / f'{NAME}_photos-112px.py')
        print('data: photographs that come with scikit-image')
    else:
        cfg = Config.fromfile(CONFIGS / f'{NAME}_folder-112px.py')
        try:
            number = len(ImageFolder(args.folder, [LoadImage()]))
        except (FileNotFoundError, ValueError) as error:
            sys.exit(f'quickstart.sh: {error}')
        print(f'data: {number} images in {args.folder}')
        cfg.train_dataloader.dataset.data_root = str(args.folder.resolve())
    device = get_device()
    run = new_run_folder(args.work_dir)
    print(f'device: {device}\nresults: {run}', flush=True)

    # The folder is written into the config: --cfg-options drops the spaces of
    # a path. The runner rewrites the file with the options.
    config = run / Path(cfg.filename).name
    cfg.dump(config)
    options = ['--cfg-options', *args.options] if args.options else []
    run_tool('train.py', config, '--work-dir', run, *options)

    checkpoint = find_latest_checkpoint(run)
    backbone, picture = run / 'backbone.pth', run / 'learning.png'
    run_tool('model_converters/export_backbone.py', checkpoint, '--to',
             'mmpretrain', '--config', config, '--out', backbone)
    if not picture.is_file():  # too few images to hold any out
        picture = run / 'reconstruction.png'
        run_tool('visualization/reconstruct.py', config, checkpoint, '--out',
                 picture)

    report = json.loads((run / 'report.json').read_text())
    memory = report['peak_memory']
    memory = ('not measured' if memory is None else
              f'{memory / 2**30:.2f} GiB' + ' on the GPU' * (device == 'cuda'))
    first, last = report['first_loss'], report['last_loss']
    print(f'''
verdict:         {report['verdict']}, by {report['verdict_images']}
loss:            {first:.4f} at first, {last:.4f} at last (mean of ten)
speed:           {report['images_per_second']:.1f} images per second
time:            {60 * report['hours']:.1f} minutes
peak memory:     {memory}
report:          {run / 'report.md'}
log:             {next(run.glob('*/*.log'))}
checkpoint:      {checkpoint}
backbone:        {backbone}
reconstructions: {picture}''')
    skipped = list(run.glob('*/skipped_images.txt'))
    if skipped:
        print(f'skipped images:  {skipped[0]}')
    if report['reconstruction']:
        print('\n' + textwrap.fill(report['reconstruction']['sentence'], 79))
    # The shell that started it is in no environment if this one is new.
    steps = [
        os.environ.get('GREENMIM_ACTIVATE'),
        'docs/get_started.md: a run of your own, step by step',
        'docs/reconstructions.md: how to read the pictures'
    ]
    print('\nnext:', *filter(None, steps), sep='\n    ')


if __name__ == '__main__':
    main()
