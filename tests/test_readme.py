# Copyright (c) greenmim authors. All rights reserved.
"""What README.md tells the reader to type exists."""
import re
import shlex
from argparse import ArgumentParser
from configparser import ConfigParser
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from mmengine.config import Config, DictAction
from mmengine.dataset import default_collate
from mmengine.registry import DefaultScope
from PIL import Image
from torch import nn

from greenmim.registry import DATASETS, MODELS

ROOT = Path(__file__).parents[1]
README = (ROOT / 'README.md').read_text(encoding='utf-8')
RECIPE = ROOT / 'configs/greenmim_swin-base-w7_8xb256-amp-coslr-800e_in1k.py'
# Options of mim itself; what it does not know goes to train.py.
MIM_FLAGS = {'--launcher', '--gpus', '--gpus-per-node', '--partition'}
# Arguments with a default, which the config does not hold.
NEW_KEYS = {
    'train_cfg.max_iters',  # of the quick start
    'auto_scale_lr.enable',
    'optim_wrapper.dtype',
    'model.backbone.with_cp',
    'model.backbone.in_channels',
    'model.neck.out_channels',
    'train_dataloader.dataset.pipeline.0.channels',
    'default_hooks.checkpoint.trusted'
}


def blocks(language):
    return re.findall(rf'^```{language}\n(.*?)^```', README, re.M | re.S)


def command_lines():
    """The commands of all shell blocks, each in one line."""
    script = '\n'.join(blocks('bash')).replace('\\\n', ' ')
    return [
        line for line in script.splitlines()
        if line and not line.startswith('#')
    ]


def flags_of(*sources):
    """The options that argument parsers in Python files define."""
    text = ''.join(Path(source).read_text('utf-8') for source in sources)
    return set(re.findall(r"'(--[a-z-]+)'", text))


def train_flags(package):
    if package == 'greenmim':
        return flags_of(ROOT / 'tools/train.py',
                        ROOT / 'greenmim/engine/launch.py')
    spec = find_spec(package)
    if spec is None:
        pytest.skip(f'{package} is not installed in this environment')
    return flags_of(Path(spec.origin).parent / '.mim/tools/train.py')


def flags_in(words):
    return {word for word in words if word.startswith('--')}


@pytest.mark.parametrize('line', command_lines())
def test_command(line):
    words = [w for w in shlex.split(line) if not re.match(r'[A-Z_]+=', w)]
    for word in words:
        if word.startswith('configs/'):
            assert (ROOT / word).is_file()

    if words[:2] == ['pip', 'install']:
        setup = ConfigParser()
        setup.read(ROOT / 'setup.cfg')
        extras = re.findall(r'\[(\w+)\]', line)
        assert set(extras) <= set(setup['options.extras_require'])
    elif words[:2] == ['mim', 'train']:
        package, config = words[2:4]
        assert flags_in(words) <= MIM_FLAGS | train_flags(package)
        if config != 'CONFIG':
            assert package == 'greenmim'
            assert len(list((ROOT / 'configs').rglob(config))) == 1
    elif words[0] in ('bash', 'python'):
        script = ROOT / words[1]
        assert script.is_file()
        known = (
            train_flags('greenmim')
            if 'train' in script.name else flags_of(script))
        assert flags_in(words) <= known
    else:
        pytest.fail(f'no test knows how to check `{line}`')


def test_documented_launcher_lines_are_there():
    assert set(command_lines()) >= {
        'mim train mmselfsup CONFIG --work-dir D',
        'mim train mmselfsup CONFIG --work-dir D --launcher pytorch --gpus 8',
        'mim train mmselfsup CONFIG --work-dir D --launcher slurm --gpus 16 '
        '--gpus-per-node 8 --partition P',
        'python tools/train.py CONFIG --work-dir D',
        'bash tools/dist_train.sh CONFIG 8',
        'GPUS_PER_NODE=8 GPUS=16 bash tools/slurm_train.sh PARTITION JOB '
        'CONFIG --work-dir D',
        'bash tools/quickstart.sh [IMAGE_FOLDER]',
        'bash tools/run_tests.sh',
    }


@pytest.mark.parametrize('column, package',
                         enumerate(['greenmim', 'mmpretrain', 'mmselfsup']))
def test_table_of_flags(column, package):
    rows = dict(
        re.findall(r'^\| `(--[a-z-]+)` \| ((?:yes|no)[yesno |]*) \|$', README,
                   re.M))
    known = train_flags(package)
    assert set(rows) >= known - {'--launcher', '--local-rank'}
    for flag, cells in rows.items():
        expected = 'yes' if flag in known else 'no'
        assert cells.split(' | ')[column] == expected, flag


def merge(cfg, options):
    """Merge options as `--cfg-options` does."""
    parser = ArgumentParser()
    parser.add_argument('--cfg-options', nargs='+', action=DictAction)
    args = parser.parse_args(['--cfg-options', *options])
    cfg.merge_from_dict(args.cfg_options)


def test_options_exist():
    options = re.findall(r'[\w.]+\.[\w.]+=[^\s`"]+', README)
    assert len(options) > 15
    for option in options:
        key = option.split('=')[0]
        cfg = Config.fromfile(RECIPE)
        if key not in NEW_KEYS:
            held = cfg
            for part in key.split('.'):
                held = held[int(part) if part.isdigit() else part]
        merge(cfg, [option])


def test_options_for_grey_images_fit_together(tmp_path):
    (line, ) = [line for line in command_lines() if 'in_channels' in line]
    cfg = Config.fromfile(RECIPE)
    cfg.model.backbone.arch = 'tiny'
    cfg.model.neck.in_channels = 768
    cfg.train_dataloader.dataset.data_root = str(tmp_path)
    merge(cfg, shlex.split(line.split('--cfg-options')[1]))

    Image.effect_noise((48, 64), 50).save(tmp_path / 'noise.png')
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(
            dict(cfg.model, data_preprocessor=cfg.data_preprocessor))
        dataset = DATASETS.build(cfg.train_dataloader.dataset)
    batch = default_collate([dataset[0], dataset[0]])
    data = model.data_preprocessor(batch, training=True)
    assert data['inputs'].shape == (2, 1, 224, 224)
    assert model(**data, mode='loss')['loss'].isfinite()


def test_python_example_builds_the_dense_backbone():
    (example, ) = blocks('python')
    scope = {}
    exec(example, scope)
    cfg = scope['model']
    init_cfg = cfg['backbone'].pop('init_cfg')
    assert init_cfg['prefix'] == 'backbone.'
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(cfg)
        pre_trained = MODELS.build(Config.fromfile(RECIPE).model)
    assert type(model.backbone).__name__ == 'SwinTransformer'
    model.backbone.load_state_dict(
        pre_trained.backbone.state_dict(), strict=True)
    assert {
        module.eps
        for module in model.backbone.modules()
        if isinstance(module, nn.LayerNorm)
    } == {1e-6}


def test_links_resolve():
    anchors = {
        re.sub(r'[^\w -]', '', heading).lower().replace(' ', '-')
        for heading in re.findall(r'^#+ (.+)$', README, re.M)
    }
    for target in re.findall(r'\]\(([^)]+)\)', README):
        if target.startswith('#'):
            assert target[1:] in anchors
        elif not target.startswith('https://'):
            assert (ROOT / target.split('#')[0]).exists(), target


def test_named_files_exist():
    """Paths in backquotes and in the tree of the project's layout."""
    paths = re.findall(r'`((?:configs|greenmim|tools|tests)/[\w./-]+)`',
                       README)
    assert paths
    (tree, ) = blocks('text')
    parent = ''
    for line in tree.splitlines():
        name = line.split()[0]
        parent = parent if line.startswith(' ') else name
        paths.append(parent + name if line.startswith(' ') else name)
    missing = [path for path in paths if not (ROOT / path).exists()]
    assert not missing


def test_model_zoo_is_the_metafile():
    cards = yaml.safe_load((ROOT / 'metafile.yml').read_text('utf-8'))
    rows = dict(
        re.findall(r'^\| \[.+?\]\((configs/.+?)\) \| (.+) \|$', README, re.M))
    assert sorted(rows) == sorted(card['Config'] for card in cards['Models'])
    for card in cards['Models']:
        _, params, flops, published, ours = rows[card['Config']].split(' | ')
        data = card['Metadata']
        assert params == f'{data["Parameters"] / 1e6:.1f} M'
        assert flops == f'{data["FLOPs"] / 1e9:.1f} G'
        result = data.get('Published Result')
        assert published == (result.split()[0] if result else 'not reported')
        assert ours == 'not measured'
