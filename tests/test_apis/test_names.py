# Copyright (c) greenmim authors. All rights reserved.
"""Names that shells, MMEngine or Python read as more than a name."""
import os
from pathlib import Path

import pytest

from greenmim.benchmarking.comparison import runs
from greenmim.command import COMMANDS, main
from tests.micro import save_classes
from tests.test_apis.conftest import NAME, PHOTOS, RUN, STEPS

LABELLED = f'labelled {NAME}'
QUIET = [
    '--set', *(f'default_hooks.{name}=None'
               for name in ('learning', 'learning_picture', 'run_report'))
]

# The words of each command, in an order in which they can follow each other,
# and a file that it writes. The fixture `run` has run `pretrain DATA --out`.
LINES = [
    (['pretrain', PHOTOS, '--recipe', f'{RUN}/config.py', '--weights',
      f'{RUN}/iter_{STEPS}.pth', '--steps', '1', '--batch-size', '2', '--out',
      NAME, *QUIET], f'{NAME}/iter_1.pth'),
    (['pretrain', PHOTOS, '--recipe', f'{RUN}/config.py', '--steps', '2',
      '--out', NAME, '--resume', *QUIET], f'{NAME}/iter_2.pth'),
    (['finetune', RUN, LABELLED, '--epochs', '1', '--batch-size', '2',
      '--out', f'classes {NAME}'], f'classes {NAME}/config.py'),
    (['features', RUN, PHOTOS, '--out', f'{NAME}.csv'], f'{NAME}.csv'),
    (['export', RUN, '--to', 'timm', '--out', f'{NAME}.safetensors'],
     f'{NAME}.safetensors'),
    (['import', f'{NAME}.safetensors', '--from', 'timm', '--out',
      f'{NAME}.pth'], f'{NAME}.pth'),
    (['reconstruct', RUN, PHOTOS, f'{PHOTOS}/0.png', '--out',
      f'seen {NAME}.html'], f'seen {NAME}.html'),
    (['knn', RUN, '--data', LABELLED, '--num-workers', '0', '--out',
      f'{NAME}.json'], f'{NAME}.json'),
    # It stops after the first of its runs.
    (['compare', RUN, LABELLED, '--work-dir', f'compared {NAME}', '--minutes',
      '0.001', '--seeds', '0'], f'compared {NAME}/results/speed.json'),
    (['forecast', f'{RUN}/config.py', '--data', PHOTOS, '--only', 'time',
      '--steps', '1', '--warmup', '0', '--json', f'hours {NAME}.json',
      '--cfg-options', f'load_from={RUN}/iter_{STEPS}.pth',
      f'train_dataloader.dataset.data_root={PHOTOS}'], f'hours {NAME}.json'),
    (['prepare', PHOTOS, f'{NAME}.tar', '--side', '64'], f'{NAME}.tar'),
    (['statistics', f'{NAME}.tar', '--num-images', '2'], f'{NAME}.tar'),
    (['browse', RUN, '--data', PHOTOS, '--out', f'samples {NAME}.html'],
     f'samples {NAME}.html'),
    (['recipes', '--recipe', 'swin-micro', '--out', f'{NAME}.py'],
     f'{NAME}.py'),
]  # yapf: disable


def test_every_command_has_a_line():
    assert {words[0] for words, _ in LINES} == {*COMMANDS} - {'doctor'}


@pytest.mark.parametrize(
    'words, written', LINES, ids=[words[0] for words, _ in LINES])
def test_names_arrive_as_typed(run, folder, words, written, monkeypatch):
    monkeypatch.chdir(folder)
    for name in 'WARMUP', 'TIMED', 'ROUNDS':
        monkeypatch.setattr(runs, name, 1)
    if not Path(LABELLED).exists():
        save_classes(Path(LABELLED), [(200, 40, 40), (40, 200, 40)], 5, 0)
    before = {*os.listdir()}
    assert main(words) == 0
    assert Path(written).exists()
    new = {*os.listdir()} - before
    assert all(NAME in name for name in new), new
