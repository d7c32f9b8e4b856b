# Copyright (c) greenmim authors. All rights reserved.
"""Every recipe's file name and record say what the config does.

Nothing is built here: test_pretraining_configs.py and
test_benchmark_configs.py do that.
"""
import re

import pytest
from mmengine.config import Config

from tests.conftest import CHECKOUT
from tests.recipes import (CONFIGS, DOWNSTREAM, FILES, PRE_TRAINING, RECIPES,
                           batch_of, learning_rates, length_of, load,
                           recipe_id, record_of)

each_recipe = pytest.mark.parametrize('path', RECIPES, ids=recipe_id)
FIELDS = {'Paper', 'Command', 'Hardware', 'Batch', 'Expected', 'Measured'}
# The quick start on a folder of images; its record is that of its base.
FOLDERS = ('greenmim_swin-micro-w4_1xb32-coslr-600i_folder-128px',
           'greenmim_swin-micro-p2_1xb16-coslr-1800i_folder-112px')


@pytest.mark.parametrize('path', FILES, ids=recipe_id)
def test_inherits_from_this_project_alone(path):
    bases, depth = [path], 0
    while bases:
        depth += 1
        assert all('::' not in str(base) for base in bases)
        bases = [(base.parent / parent).resolve() for base in bases
                 for parent in Config._get_base_files(str(base))]
        assert all(CONFIGS.resolve() in base.parents for base in bases)
    assert depth <= 3


@each_recipe
def test_name_says_what_the_config_does(path):
    config = load(path)
    gpus, images = batch_of(path)
    assert config.train_dataloader.batch_size == images
    assert config.auto_scale_lr.base_batch_size == gpus * images
    amp = config.optim_wrapper.type == 'AmpOptimWrapper'
    assert amp == ('-amp-' in path.stem)
    train = config.train_cfg
    assert train.get('max_epochs', train.get('max_iters')) == length_of(path)
    arch = config.model.backbone.get('arch')
    if isinstance(arch, str):
        assert f'-{arch}' in path.stem


@each_recipe
def test_record_is_complete_and_agrees_with_the_config(path):
    fields = record_of(path)
    if path.stem in FOLDERS:
        assert set(fields) == {'Command'}
        fields = dict(record_of(path.with_stem(path.stem.replace(
            '_folder-', '_photos-'))), **fields)  # yapf: disable
    assert set(fields) == FIELDS and all(fields.values())
    assert 'arxiv.org' in fields['Paper'] or fields['Paper'].startswith('none')

    command = fields['Command'].replace('\\\n    ', '')
    gpus, images = batch_of(path)
    for script in re.findall(r'tools/[\w/.]+', command):
        assert (CHECKOUT / script).is_file(), script
    if 'quickstart.sh' not in command:
        assert path.relative_to(CHECKOUT).as_posix() in command
    rate = load(path).optim_wrapper.optimizer.lr
    batch, arithmetic = re.split('; (?=learning rate )',
                                 fields['Batch'].rstrip('.'))
    assert re.match(rf'{gpus} x {images}( = {gpus * images})?$', batch)
    found = re.match(
        r'learning rate (?:([\d.e-]+) \* (\d+) / (\d+) = )?([\d.e-]*\d)',
        arithmetic)
    base, of_batch, per, written = found.groups()
    assert float(written) == pytest.approx(rate)
    if base:
        assert int(of_batch) == gpus * images
        assert float(base) * gpus * images / int(per) == pytest.approx(rate)
    if gpus > 1:  # a recipe of a paper, which nobody has run here
        assert f'GPUS={gpus}' in command or re.search(rf'[ \n]{gpus}( |$)',
                                                      command)
        assert fields['Hardware'].startswith(
            f'{gpus} GPUs with {images} images each; ')
        assert fields['Measured'] == 'not measured by this project.'


@pytest.mark.parametrize('path', PRE_TRAINING, ids=recipe_id)
def test_every_launcher_finds_what_it_needs(path):
    """MMSelfSup's train.py fills in nothing, MMPretrain's little."""
    config = load(path)
    loader = config.train_dataloader
    assert loader.collate_fn.type == 'greenmim.collate'
    assert loader.persistent_workers == (loader.num_workers > 0)
    assert 'pin_memory' in loader
    checkpoint = config.default_hooks.checkpoint
    assert checkpoint.type == 'greenmim.SafeCheckpointHook'
    assert checkpoint.get('max_keep_ckpts', 2) >= 2
    # Masks and crops differ by rank: by the seeds of samples and steps, or
    # because every process continues from a seed of its own.
    hooks = [*config.default_hooks.values(), *config.get('custom_hooks', [])]
    seeded = 'greenmim.SeedStepHook' in [hook.type for hook in hooks]
    if config.model.type.startswith('greenmim.'):
        assert seeded != config.randomness.get('diff_rank_seed', False)
    if loader.sampler.type.startswith('greenmim.Seeded'):
        assert seeded
    assert 'work_dir' not in config and 'launcher' not in config


# Epochs of the papers; the first pattern that is found in the path holds.
WARM_UP = {
    '^simmim/': 10,
    '^fastmim/.*vit': 20,
    '^fastmim/': 10,
    '^benchmarks/.*_in1k': 20,
    '^(mmselfsup/)?greenmim_': 40,
}


@pytest.mark.parametrize(
    'path', [path for path in RECIPES if path not in DOWNSTREAM],
    ids=recipe_id)
def test_learning_rate_warms_up_and_falls(path):
    """From close to 0, over the papers' warm-up, to the end of the run."""
    config, length = load(path), length_of(path)
    peak = config.optim_wrapper.optimizer.lr
    rates = learning_rates(config)
    warm_up = config.param_scheduler[0].end
    for pattern, epochs in WARM_UP.items():
        if '_in1k' in path.stem and re.search(pattern, recipe_id(path)):
            assert warm_up == (10 if '-linear-' in path.stem else epochs)
            break
    # MMEngine reaches the peak one step before the warm-up ends.
    assert 0 < rates[0] <= peak / 100
    assert rates[warm_up // 2] == pytest.approx(peak / 2, rel=0.15)
    assert max(rates) == rates[warm_up] == pytest.approx(peak)
    if '-steplr-' in path.stem:  # a tenth for the last eighth
        drop = length * 7 // 8
        assert rates[drop - 1] == pytest.approx(peak)
        assert rates[drop] == rates[-1] == pytest.approx(peak / 10)
        return
    least = config.param_scheduler[-1].eta_min
    assert least <= peak / 20
    middle = (warm_up + length) // 2
    assert rates[middle] == pytest.approx((peak + least) / 2, rel=0.1)
    assert least <= rates[-1] <= least + peak / 100
