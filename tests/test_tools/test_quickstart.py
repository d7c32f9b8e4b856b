# Copyright (c) greenmim authors. All rights reserved.
import json
import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from mmpretrain.models import SwinTransformer
from PIL import Image

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / 'tools' / 'quickstart.sh'
DRIVER = ROOT / 'tools' / 'misc' / 'quickstart.py'
CONFIGS = ROOT / 'configs' / 'quickstart'
PAGE = ROOT / 'docs' / 'get_started.md'


def bash(environment,
         tmp_path,
         *arguments,
         script=SCRIPT) -> subprocess.CompletedProcess:
    return subprocess.run(['bash', str(script), *map(str, arguments)],
                          env=environment,
                          cwd=tmp_path,
                          stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT,
                          text=True)


@pytest.fixture
def active(environment):
    """The environment of the tests, as an active virtual environment."""
    binaries = environment['PATH'].split(os.pathsep)[0]
    return dict(environment, VIRTUAL_ENV=str(Path(binaries).parent))


def test_own_folder_from_start_to_end(active, images, tmp_path):
    """A few iterations on a folder with a broken image."""
    folder = tmp_path / 'my images'
    folder.mkdir()
    for file in images.rglob('*.png'):
        Image.open(file).resize((300, 280)).save(folder / file.name)
    (folder / 'broken.jpg').write_text('no image')
    work_dir = tmp_path / 'D'
    (work_dir / 'run_1').mkdir(parents=True)  # an earlier run

    active['GREENMIM_ACTIVATE'] = 'source it'  # see the test below
    result = bash(active, tmp_path, folder, 'train_cfg.max_iters=6',
                  'param_scheduler.0.end=2', 'param_scheduler.1.begin=2',
                  'train_dataloader.batch_size=3',
                  'default_hooks.logger.interval=1', '--work-dir', work_dir)
    assert result.returncode == 0, result.stdout
    assert 'data: 9 images' in result.stdout
    assert f'results: {work_dir / "run_2"}' in result.stdout
    assert not list((work_dir / 'run_1').iterdir())
    progress = re.findall(r'(\d)/6  loss ([\d.]+)  [\d.]+ images/s .* left',
                          result.stdout)
    assert [int(number) for number, _ in progress] == list(range(1, 7))
    before = result.stdout.split('1/6  loss')[0].splitlines()
    start = next(i for i, line in enumerate(before) if 'results: ' in line)
    assert len(before) - start <= 15, before
    assert 'env_cfg' not in result.stdout, 'the config is for the log'

    summary = dict(re.findall(r'^([a-z ]+): +(.*)$', result.stdout, re.M))
    report = json.loads(
        Path(summary['report']).with_suffix('.json').read_text())
    first, last = re.findall(r'\d\.\d+', summary['loss'])
    assert first == f'{report["first_loss"]:.4f}'
    assert last == f'{report["last_loss"]:.4f}'
    assert float(summary['speed'].split()[0]) > 0
    assert 0.1 < float(summary['peak memory'].split()[0]) < 20
    assert summary['verdict'] == f'{report["verdict"]}, by 8 training images'
    assert 'broken.jpg' in Path(summary['skipped images']).read_text()
    for name in ('report', 'log', 'checkpoint', 'backbone', 'reconstructions'):
        file = Path(summary[name])
        assert file.is_file() and work_dir / 'run_2' in file.parents
    names = [
        re.findall(r'^([a-z ]+): +\S',
                   re.search('\nverdict:.*?\n\n', text, re.S).group(), re.M)
        for text in (PAGE.read_text(), result.stdout)
    ]
    assert [*names[0], 'skipped images'] == names[1]
    following = result.stdout.split('\nnext:\n')[1]
    assert following.splitlines()[0].strip() == 'source it'
    pages = re.findall(r'docs/\w+\.md', following)
    assert pages and all((ROOT / page).is_file() for page in pages)
    picture = Image.open(summary['reconstructions'])
    assert picture.mode == 'RGB' and min(picture.size) > 4 * 96

    cfg = Config.fromfile(next((work_dir / 'run_2').glob('*.py')))
    cfg.model.backbone.pop('type')
    state_dict = torch.load(summary['backbone'], weights_only=True)
    state_dict = {
        name[len('backbone.'):]: tensor
        for name, tensor in state_dict['state_dict'].items()
    }
    SwinTransformer(**cfg.model.backbone).load_state_dict(
        state_dict, strict=True)


@pytest.mark.parametrize('is_active', [False, True])
def test_a_new_environment_has_to_be_activated(environment, tmp_path,
                                               is_active):
    root = tmp_path / 'my checkout'
    (root / '.venv').mkdir(parents=True)
    for name in 'tools', 'setup.cfg', 'requirements':
        (root / name).symlink_to(ROOT / name)
    venv = root / '.venv'
    environment.pop('GREENMIM_ACTIVATE', None)  # of the tests' own command
    printed = subprocess.run([
        'bash', '-c', 'source tools/setup_env.sh; build_venv() { :; }; '
        'use_environment runtime; echo "$GREENMIM_ACTIVATE"'
    ],
                             env=dict(
                                 environment,
                                 VIRTUAL_ENV=str(venv) if is_active else ''),
                             cwd=root,
                             stdout=subprocess.PIPE,
                             check=True,
                             text=True).stdout.strip()
    if is_active:
        assert not printed
    else:
        assert shlex.split(printed) == ['source', f'{venv}/bin/activate']


# The others take a step in test_pretraining_configs.py.
@pytest.mark.parametrize('config', [
    pytest.param(
        path,
        id=path.stem,
        marks=[pytest.mark.slow] * (not path.stem.startswith(
            ('greenmim_swin-micro', 'greenmim_convnext'))))
    for path in sorted(CONFIGS.glob('*_photos*.py'))
])
def test_photographs_lower_the_loss(config, tmp_path):
    """A seeded run of every model of the quick start, shortened."""
    cfg = Config.fromfile(config)
    cfg.merge_from_dict({
        'work_dir': str(tmp_path),
        'train_dataloader.num_workers': 0,
        'train_dataloader.persistent_workers': False,
        'train_dataloader.dataset.num_views': 320,
        'train_dataloader.batch_size': 16,
        'train_cfg.max_iters': 60,
        'warm_up.of': 60,  # not shortened
        'default_hooks.logger.interval': 10,
        'default_hooks.checkpoint.interval': -1,
    })
    runner = Runner.from_cfg(cfg)
    runner.train()
    losses = runner.message_hub.get_scalar('train/loss').data[0]
    assert len(losses) == 60
    assert losses[:5].mean() - losses[-5:].mean() > 0.2


@pytest.mark.parametrize('arguments, message', [
    (['gone'], "expected a folder of images, but 'gone' is not a folder"),
    ([__file__], 'is not a folder'),
])
def test_missing_folder_is_told_before_the_set_up(active, tmp_path, arguments,
                                                  message):
    result = bash(dict(active, VIRTUAL_ENV=''), tmp_path, *arguments)
    assert result.returncode == 1
    assert message in result.stdout
    assert result.stdout.count('\n') == 1


@pytest.mark.parametrize('line', [
    'bash tools/quickstart.sh [IMAGE_FOLDER]',
    'bash tools/run_tests.sh [--slow] [PYTEST_ARGUMENTS]'
])
def test_help(active, tmp_path, line):
    """It is there at once: nothing is installed."""
    result = bash(
        dict(active, VIRTUAL_ENV=''),
        tmp_path,
        '--help',
        script=ROOT / line.split()[1])
    assert result.returncode == 0
    assert line in result.stdout
    assert '#' not in result.stdout and '[greenmim]' not in result.stdout


@pytest.mark.parametrize('files, message', [
    ([], 'no file below'),
    (['a.jpg', 'b.png'], 'none of its 2 images could be read'),
])
def test_folder_without_images(run_tool, tmp_path, files, message):
    folder = tmp_path / 'images'
    folder.mkdir()
    for name in files:
        (folder / name).write_text('no image')
    with pytest.raises(SystemExit, match=message):
        run_tool(DRIVER, folder, '--work-dir', tmp_path / 'D')
    assert not (tmp_path / 'D').exists()


def test_second_folder_is_refused(run_tool, images, tmp_path, capsys):
    with pytest.raises(SystemExit):
        run_tool(DRIVER, images, images, '--work-dir', tmp_path / 'D')
    assert 'expected KEY=VALUE' in capsys.readouterr().err


def test_failing_training_shows_why(run_tool, tmp_path, capsys):
    with pytest.raises(SystemExit, match='train.py failed, see above'):
        run_tool(DRIVER, 'train_cfg.max_epoch=3', '--work-dir', tmp_path)
    assert "did you mean 'max_epochs'?" in capsys.readouterr().out
