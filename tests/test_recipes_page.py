# Copyright (c) greenmim authors. All rights reserved.
"""docs/recipes.md: its configs train, its commands prepare data."""
import math
import re
import subprocess
import tarfile
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmpretrain.registry import DATASETS, MODELS
from PIL import Image

from greenmim.datasets import ImageFolder
from greenmim.registry import MODELS as PARTS
from greenmim.registry import TASK_UTILS
from tests.conftest import CHECKOUT
from tests.documents import Page, run_line, short_run
from tests.micro import scalars_of

PAGE = Page('docs/recipes.md')
TEXT = PAGE.text
CONFIGS = [
    pytest.param(block, id='-'.join(re.findall(r'greenmim\.(\w+)', block)))
    for block in PAGE.take('python', '_base_')
]
UNPACK, = PAGE.take('bash', 'tar -xf')
SELECT, = PAGE.take('bash', 'list.txt')
CACHE, = PAGE.take('bash', 'cache_targets.py')


def save_teacher():
    """Random weights of the teacher of the page."""
    teacher = MODELS.build(
        dict(
            type='VisionTransformer',
            arch='deit-small',
            img_size=224,
            patch_size=16))
    Path('checkpoints').mkdir()
    state = {f'backbone.{k}': v for k, v in teacher.state_dict().items()}
    torch.save(dict(state_dict=state), 'checkpoints/teacher.pth')


@pytest.mark.parametrize('block', CONFIGS)
def test_config_trains(block, workspace, run_tool):
    """By the command of the page."""
    if 'centre.png' in block:
        picture = Image.new('L', (128, 128), 255)
        picture.paste(0, (32, 32, 96, 96))
        picture.save('centre.png')
    if 'checkpoints/teacher.pth' in block:
        save_teacher()
    Path('mine.py').write_text(block)
    options = short_run(3)
    if 'milestones' in block:  # those after the end are refused
        options.append('default_hooks.image_size.milestones=[1,2]')
    line, = [x for x in PAGE.inline_commands() if 'mine.py' in x]
    run_line(run_tool, line, *options, 'default_hooks.learning=None',
             'default_hooks.run_report=None',
             'default_hooks.logger.interval=1')
    assert Path('work_dirs/mine/iter_3.pth').is_file()
    losses = [row['loss'] for row in scalars_of(Path('work_dirs/mine'))]
    assert len(losses) == 3 and 0 < min(losses) <= max(losses) < math.inf


def test_targets_are_cached(workspace, run_tool):
    """And the training with them never calls the teacher."""
    save_teacher()
    block, = (x.values[0] for x in CONFIGS if 'TeacherTarget' in x.values[0])
    Path('mine.py').write_text(block)
    make, train = CACHE.splitlines()
    run_line(run_tool, make, 'train_dataloader.dataset.num_views=8')
    Path('checkpoints/teacher.pth').rename('teacher.pth')
    with pytest.raises(
            AssertionError, match='no file checkpoints.teacher.pth'):
        run_line(run_tool, train, *short_run(3))  # found at the start
    Path('teacher.pth').rename('checkpoints/teacher.pth')
    run_line(run_tool, train, *short_run(3), 'default_hooks.learning=None')
    assert Path('work_dirs/mine/iter_3.pth').is_file()


def test_table_of_hooks():
    """The names that the recipes give, with what they run."""
    table = TEXT.split('## Hooks')[1]
    named = set(re.findall(r'^\| `(\w+)` \|', table, re.M))
    hooks = {}
    for name in 'default_runtime.py', 'classification_runtime.py':
        cfg = Config.fromfile(CHECKOUT / 'configs' / '_base_' / name)
        hooks.update(cfg.default_hooks)
    assert named == {
        name
        for name, hook in hooks.items() if hook.type.startswith('greenmim.')
    }


def test_every_part_is_named():
    parts = {
        name
        for registry in (PARTS, TASK_UTILS)
        for name, part in registry.module_dict.items()
        if part.__module__.split('.')[2] in ('heads', 'masking', 'necks',
                                             'selfsup', 'target_generators')
    }
    assert len(parts) > 15 and parts <= set(re.findall(r'\w+', TEXT))


def test_lengths_of_targets_are_true():
    images = torch.randn(1, 3, 32, 32)
    for name, length in re.findall(r'`greenmim\.(\w+)`.*\| (\d+)', TEXT):
        target = MODELS.build(dict(type=f'greenmim.{name}'))
        assert target(images).shape == (1, 1, int(length))


def test_imagenet_is_unpacked(workspace):
    """With a fine-tuning set that reads the list of the page."""
    Image.new('RGB', (8, 8)).save('image.JPEG')
    names = ['n01440764', 'n01443537']
    for name in names:
        with tarfile.open(f'{name}.tar', 'w') as archive:
            archive.add('image.JPEG', f'{name}_1.JPEG')
    with tarfile.open('ILSVRC2012_img_train.tar', 'w') as archive:
        for name in names:
            archive.add(f'{name}.tar')
    subprocess.run(['bash', '-euc', UNPACK], check=True)
    found = ImageFolder('data/imagenet/train',
                        [dict(type='greenmim.LoadImage')])
    assert [
        Path(found.get_data_info(i)['img_path']).name
        for i in range(len(found))
    ] == [f'{n}_1.JPEG' for n in names]
    assert not list(Path('data').rglob('*.tar'))

    line = re.search(r'`(ILSVRC2012_val_\w+\.JPEG \d)`', TEXT)[1]
    name, label = line.split()
    Path('data/imagenet/val').mkdir()
    Path('data/imagenet/meta').mkdir()
    Path('image.JPEG').rename(f'data/imagenet/val/{name}')
    Path('data/imagenet/meta/val.txt').write_text(line)
    recipes = CHECKOUT / 'configs' / 'benchmarks' / 'classification'
    cfg = Config.fromfile(recipes /
                          'swin-base-w7_8xb96-amp-coslr-100e_in1k.py')
    options = re.search(r'--cfg-options (val_\S+) (test_\S+)', TEXT)
    cfg.merge_from_dict(dict(option.split('=') for option in options.groups()))
    for part in cfg.val_dataloader, cfg.test_dataloader:
        sample, = DATASETS.build(part.dataset)
        assert sample['data_samples'].gt_label == int(label)


def test_a_list_becomes_a_folder(workspace):
    for name in ('a.png', 'deep er/b.png', 'deep er/c.png'):
        path = Path('data/images', name)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new('RGB', (8, 8)).save(path)
    Path('list.txt').write_text('a.png\ndeep er/c.png\n')
    subprocess.run(['bash', '-euc', SELECT], check=True)
    found = ImageFolder('data/selected', [dict(type='greenmim.LoadImage')])
    assert len(found) == 2
    assert [found.get_data_info(i)['img_path'] for i in range(2)
            ] == ['data/selected/a.png', 'data/selected/deep er/c.png']
