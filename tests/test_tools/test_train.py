# Copyright (c) greenmim authors. All rights reserved.
import os
import runpy
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from mmengine.config import Config
from mmengine.model import MMDistributedDataParallel

from greenmim.engine.launch import RANK_VARIABLES, build_runner
from tests.processes import free_port

ROOT = Path(__file__).parents[2]
TRAIN = ROOT / 'tools' / 'train.py'


@pytest.fixture
def merged(monkeypatch):
    """The config that the arguments of tools/train.py make of a config."""
    tool = runpy.run_path(str(TRAIN))

    def merge(config, *arguments):
        argv = [str(TRAIN), str(config), *map(str, arguments)]
        monkeypatch.setattr(sys, 'argv', argv)
        monkeypatch.setenv('LOCAL_RANK', '0')
        cfg = Config.fromfile(config)
        tool['merge_args'](cfg, tool['parse_args']())
        return cfg

    return merge


def test_defaults(merged, make_config):
    config = make_config()
    cfg = Config.fromfile(config)
    for name in ('pin_memory', 'persistent_workers', 'collate_fn'):
        del cfg.train_dataloader[name]
    cfg.train_dataloader.num_workers = 1
    cfg.default_hooks.checkpoint.type = 'CheckpointHook'
    cfg.val_dataloader = dict(num_workers=0)
    cfg.dump(config)
    cfg = merged(config)
    assert cfg.work_dir == './work_dirs/micro_config'
    assert cfg.launcher == 'none'
    assert cfg.get('resume') is None and cfg.get('load_from') is None
    assert cfg.train_dataloader.pin_memory == torch.cuda.is_available()
    assert cfg.train_dataloader.persistent_workers
    assert cfg.train_dataloader.collate_fn == dict(type='default_collate')
    assert not cfg.val_dataloader.persistent_workers
    assert cfg.default_hooks.checkpoint.type == 'greenmim.SafeCheckpointHook'
    assert 'trusted' not in cfg.default_hooks.checkpoint


def test_arguments(merged, make_config):
    config = make_config({
        'val_cfg': dict(),
        'val_dataloader': dict(num_workers=0),
        'val_evaluator': dict(type='Accuracy'),
        'train_dataloader.pin_memory': True,
        'train_dataloader.persistent_workers': True
    })
    cfg = merged(config, '--work-dir', 'D', '--resume', 'epoch_1.pth', '--amp',
                 '--no-validate', '--auto-scale-lr', '--no-pin-memory',
                 '--no-persistent-workers', '--trust-checkpoint', '--launcher',
                 'slurm', '--local-rank', '3', '--cfg-options',
                 'model.mask_ratio=0.5', 'optim_wrapper.loss_scale=512.')
    assert cfg.work_dir == 'D'
    assert cfg.resume and cfg.load_from == 'epoch_1.pth'
    assert cfg.default_hooks.checkpoint.trusted == 'epoch_1.pth'
    assert cfg.optim_wrapper.type == 'AmpOptimWrapper'
    assert cfg.optim_wrapper.loss_scale == 512.
    assert cfg.val_cfg is cfg.val_dataloader is cfg.val_evaluator is None
    assert cfg.auto_scale_lr == dict(base_batch_size=4, enable=True)
    assert not cfg.train_dataloader.pin_memory
    assert not cfg.train_dataloader.persistent_workers
    assert cfg.launcher == 'slurm'
    assert cfg.model.mask_ratio == 0.5


def test_automatic_resumption(merged, make_config, tmp_path):
    (tmp_path / 'last_checkpoint').write_text('D/epoch_3.pth')
    cfg = merged(
        make_config({'load_from': 'other.pth'}), '--work-dir', tmp_path,
        '--resume', '--trust-checkpoint')
    assert cfg.resume and cfg.load_from is None
    assert cfg.default_hooks.checkpoint.trusted == 'D/epoch_3.pth'


def test_learning_rate_without_base(merged, make_config):
    config = make_config({'auto_scale_lr': None})
    with pytest.raises(ValueError, match='expects `auto_scale_lr = dict'):
        merged(config, '--auto-scale-lr')


def test_unknown_argument_in_config(run_tool, make_config):
    for key, owner in (('model', 'MaskedImageModeling'), ('model.backbone',
                                                          'SwinTransformer')):
        with pytest.raises(SystemExit, match=f"{owner}.*argument 'foo'"):
            run_tool(TRAIN, make_config(), '--cfg-options', f'{key}.foo=1')


@pytest.mark.parametrize('option, hint', [
    ('optim_wraper.optimizer.lr=1', "; did you mean 'optim_wrapper'?"),
    ('xyz=1', r"named 'xyz' \(--debug"),
])
def test_misspelt_setting(run_tool, make_config, option, hint):
    with pytest.raises(SystemExit, match=hint):
        run_tool(TRAIN, make_config(), '--cfg-options', option)


def test_settings_that_the_config_leaves_out(merged, make_config):
    options = ('find_unused_parameters=True', 'visualizer.name=x')
    assert not {o.split('=')[0].split('.')[0]
                for o in options} & set(merged(make_config()))
    cfg = merged(make_config(), '--cfg-options', *options)
    assert cfg.find_unused_parameters and cfg.visualizer.name == 'x'


@pytest.mark.parametrize('package, option', [
    ('greenmim', 'default_hooks.run_report=None'),
    ('mmpretrain', 'default_hooks.run_report.type=mmengine.hooks.Hook'),
    ('mmselfsup', 'default_hooks.run_report.type=mmengine.hooks.Hook'),
    ('greenmim', 'default_hooks.param_scheduler=None'),
])
def test_hook_switched_off(package, option, run_tool, make_config, tmp_path):
    """MMEngine takes None for its own hooks only; tools/train.py for all."""
    config = make_config({
        'train_cfg.max_epochs':
        1,
        'default_hooks.run_report':
        dict(type='greenmim.RunReportHook')
    })
    script = TRAIN
    if package != 'greenmim':
        folder = Path(pytest.importorskip(package).__file__).parent
        script = folder / '.mim' / 'tools' / 'train.py'
    run_tool(script, config, '--work-dir', tmp_path / 'D', '--cfg-options',
             option)
    assert (tmp_path / 'D' / 'epoch_1.pth').exists()
    switched_off = 'run_report' in option
    assert (tmp_path / 'D' / 'report.json').exists() != switched_off


def test_misspelt_hook_to_switch_off(run_tool, make_config):
    with pytest.raises(SystemExit, match='the name of a hook, one of check'):
        run_tool(TRAIN, make_config(), '--cfg-options',
                 'default_hooks.leerning=None')


@pytest.mark.skipif(torch.cuda.is_available(), reason='there is a GPU')
def test_amp_without_gpu(run_tool, make_config, tmp_path):
    config = make_config({'train_cfg.max_epochs': 1})
    run_tool(TRAIN, config, '--amp', '--work-dir', tmp_path / 'D')
    warning = 'Automatic mixed precision needs a GPU and there is none'
    log, = (tmp_path / 'D').rglob('*.log')
    assert log.read_text().count(warning) == 1
    assert (tmp_path / 'D' / 'epoch_1.pth').exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason='there is a GPU')
def test_launcher_without_its_job(run_tool, make_config, monkeypatch):
    for name in ('RANK', 'WORLD_SIZE'):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(SystemExit, match='got no RANK, WORLD_SIZE: start'):
        run_tool(TRAIN, make_config(), '--launcher', 'pytorch')


@pytest.mark.skipif(torch.cuda.is_available(), reason='there is a GPU')
@pytest.mark.parametrize('launcher', ['pytorch', 'slurm', 'mpi'])
def test_process_group_without_gpu(launcher, make_config, monkeypatch,
                                   tmp_path):
    monkeypatch.setenv('LOCAL_RANK', '3')
    for name, value in zip(RANK_VARIABLES[launcher], ('0', '1', '0')):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv('MASTER_ADDR', '127.0.0.1')
    monkeypatch.setenv('MASTER_PORT', free_port())
    cfg = Config.fromfile(
        make_config({
            'launcher': launcher,
            'work_dir': str(tmp_path),
            'env_cfg.dist_cfg.timeout': 60
        }))
    try:
        runner = build_runner(cfg)
        assert dist.get_backend() == 'gloo'
        assert isinstance(runner.model, MMDistributedDataParallel)
        assert not runner.model.broadcast_buffers
        assert os.environ['LOCAL_RANK'] == '0'
    finally:
        dist.destroy_process_group()


def test_print_config(run_tool, make_config, capsys):
    run_tool(ROOT / 'tools' / 'misc' / 'print_config.py', make_config(),
             '--cfg-options', 'model.mask_ratio=0.5')
    printed = Config.fromstring(capsys.readouterr().out, '.py')
    assert printed.model.mask_ratio == 0.5
    assert printed.model.type == 'greenmim.GreenMIM'
