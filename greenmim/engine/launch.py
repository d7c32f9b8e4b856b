# Copyright (c) greenmim authors. All rights reserved.
"""Arguments and runner of tools/train.py and tools/test.py."""
import argparse
import os
import os.path as osp
import subprocess
import sys
from contextlib import contextmanager
from datetime import timedelta
from difflib import get_close_matches
from inspect import signature
from pathlib import Path
from typing import Any, Dict, Iterator, Optional

import torch.distributed as dist
from mmengine.config import Config, ConfigDict
from mmengine.device import get_device
from mmengine.logging import print_log
from mmengine.model import BaseModel
from mmengine.registry import RUNNERS, init_default_scope
from mmengine.runner import Runner, find_latest_checkpoint

from greenmim.errors import one_line
from greenmim.options import ReadOptions, read_options
from greenmim.registry import MODELS
from .allocator import grow_segments
from .hooks.linked_settings_hook import link_loader
from .screen import QuietRunner
from .spelling import check_spelling
from .use_data import innermost, use_data

# Where each launcher writes the rank, world size and local rank.
RANK_VARIABLES = {
    'pytorch': ('RANK', 'WORLD_SIZE', 'LOCAL_RANK'),
    'slurm': ('SLURM_PROCID', 'SLURM_NTASKS', 'SLURM_LOCALID'),
    'mpi': ('OMPI_COMM_WORLD_RANK', 'OMPI_COMM_WORLD_SIZE',
            'OMPI_COMM_WORLD_LOCAL_RANK'),
}

# The hooks that MMEngine registers by itself, and removes if they are None.
MMENGINE_HOOKS = ('checkpoint', 'logger', 'param_scheduler', 'runtime_info',
                  'sampler_seed', 'timer')

LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')

# Settings that are read but are not arguments of the runner.
OTHER_SETTINGS = ('activation_checkpointing', 'compile', 'custom_imports',
                  'efficient_conv_bn_eval', 'find_unused_parameters',
                  'model_wrapper_cfg', 'overwrite', 'runner_type', 'sync_bn',
                  'tta_model', 'tta_pipeline', 'warm_up')

# Transforms of which there is a faster one of the same name.
REPLACED = 'RandomResizedCrop', 'RandomFlip'
DECODER = 'opencv'  # where LoadImage names none


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that training and testing have in common."""
    parser.add_argument(
        '--work-dir',
        help='the folder for logs and results, by default ./work_dirs/ and '
        'the name of the config')
    parser.add_argument(
        '--data',
        metavar='FOLDER',
        help='the images: a folder, and for a pre-training also an archive. '
        'A classifier needs labelled ones: class folders, of which every '
        'fifth image is held out, train/ with val/ or test/, or lists of '
        'images and classes; their number is set, too')
    parser.add_argument(
        '--amp',
        action='store_true',
        help='use automatic mixed precision; without a GPU, train in full '
        'precision with a warning')
    parser.add_argument(
        '--no-pin-memory',
        action='store_true',
        help='disable the pin_memory option of the dataloaders')
    parser.add_argument(
        '--no-persistent-workers',
        action='store_true',
        help='disable the persistent_workers option of the dataloaders')
    parser.add_argument(
        '--trust-checkpoint',
        action='store_true',
        help='load checkpoints, that of an `init_cfg` too, even if they hold '
        'more than tensors and plain types: loading them can then run code, '
        'so do this only with files whose origin you trust')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=ReadOptions,
        metavar='KEY=VALUE',
        help='override settings of the config, e.g. model.mask_ratio=0.6; a '
        'list is written key="[a,b]" or key=a,b, a nested one '
        'key="[(a,b),(c,d)]", with the quotation marks and without spaces; '
        'default_hooks.NAME=None switches a hook off')
    parser.add_argument(
        '--debug',
        action='store_true',
        help='show the traceback of a wrong setting')
    parser.add_argument(
        '--launcher',
        choices=['none', *RANK_VARIABLES],
        default='none',
        help='what started the processes of a distributed job; without a GPU '
        'they communicate through gloo')
    # torch.distributed.launch, which `mim train` calls, passes it.
    parser.add_argument(
        '--local_rank',
        '--local-rank',
        type=int,
        default=0,
        help=argparse.SUPPRESS)


def merge_common_arguments(cfg: Config, args: argparse.Namespace) -> None:
    """Merge the common arguments into the config, ``--cfg-options`` last.

    Raises:
        ValueError: If an option is not a setting of the config or the runner.
    """
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    cfg.launcher = args.launcher
    if args.work_dir is not None:
        cfg.work_dir = args.work_dir
    elif cfg.get('work_dir') is None:
        name = osp.splitext(osp.basename(args.config))[0]
        cfg.work_dir = osp.join('./work_dirs', name)

    if args.data is not None:
        use_data(cfg, args.data)
    set_defaults(cfg)
    for field in LOADERS:
        loader = cfg.get(field) or ConfigDict()
        if args.no_pin_memory:
            loader.pin_memory = False
        if args.no_persistent_workers:
            loader.persistent_workers = False
    set_options(cfg, args.cfg_options or {})
    if args.trust_checkpoint:
        cfg.default_hooks.checkpoint.trusted = (
            cfg.get('load_from') or find_latest_checkpoint(cfg.work_dir))


def set_defaults(cfg: Config) -> None:
    """Set the defaults of data loading and checkpoints."""
    for field in LOADERS:
        loader = cfg.get(field)
        if loader is not None:
            loader.setdefault('pin_memory', True)
            loader.setdefault('persistent_workers', loader.num_workers > 0)
            loader.setdefault('collate_fn', dict(type='default_collate'))

    # Checkpoints of MMEngine's own hook cannot be resumed since PyTorch 2.6.
    hooks = cfg.setdefault('default_hooks', ConfigDict())
    hooks.setdefault('run_folder', ConfigDict(type='greenmim.RunFolderHook'))
    hooks.setdefault('settings',
                     ConfigDict(type='greenmim.LinkedSettingsHook'))
    hook = hooks.setdefault('checkpoint', ConfigDict())
    if hook is not None and hook.get('type') in (None, 'CheckpointHook'):
        hook.type = 'greenmim.SafeCheckpointHook'


def set_options(cfg: Config, options: Dict[str, Any]) -> None:
    """Override settings of a config, which would accept a misspelt one.

    Raises:
        ValueError: If an option is no setting of the config or the runner, or
            resembles an argument of the class whose settings it would join.
    """
    known = {*cfg, *signature(Runner).parameters, *OTHER_SETTINGS}
    hooks = {*MMENGINE_HOOKS, *cfg.default_hooks}
    options = read_options(options, cfg)
    for option, value in options.items():
        name, _, hook = option.partition('.')
        if name not in known:
            close = get_close_matches(name, known, 1)
            hint = f'; did you mean {close[0]!r}?' if close else ''
            raise ValueError(f'{option}: expected a setting of the config, '
                             f'of which none is named {name!r}{hint}')
        if name == 'default_hooks' and value is None and hook not in hooks:
            raise ValueError(f'{option}=None: expected the name of a hook, '
                             f'one of {", ".join(sorted(hooks))}')
        if name in cfg:
            check_spelling(cfg, option)
    cfg.merge_from_dict(options)
    for field in LOADERS:
        link_loader(cfg.get(field) or {})


def read_config(path: str) -> Config:
    """Read a config file.

    Args:
        path (str): The file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is a folder, or no config.
    """
    if osp.isdir(path):
        raise ValueError(
            f'expected a config file, got the folder {path}; to train on the '
            f'images in it, name a config and add --data {path}')
    if not osp.isfile(path):
        raise FileNotFoundError(f'expected a config file, found no {path}')
    if not path.endswith(('.py', '.json', '.yaml', '.yml')):
        raise ValueError(
            f'expected a config file that ends in .py, got {path}')
    try:
        return Config.fromfile(path)
    except (ValueError, AssertionError) as error:
        with open(path, encoding='utf-8') as file:
            if 'greenmim::' not in file.read():
                raise
        raise ValueError(
            f'{path}: MMEngine knows no _base_ of greenmim:: ({error}). Write '
            'the recipe to a file by `greenmim recipes --recipe NAME --out '
            'base.py`, and name that file') from error


@contextmanager
def one_line_errors(debug: bool = False) -> Iterator[None]:
    """Exit with one line where a setting or a file is wrong.

    Errors of a run that has begun to train keep their traceback.

    Args:
        debug (bool): Whether to show the traceback. Defaults to False.

    Raises:
        SystemExit: Instead of such an error.
    """
    try:
        yield
    except Exception as error:
        text = None if debug else one_line(error)
        if text is None:
            raise
        program = osp.basename(sys.argv[0])
        sys.exit(f'{program}: {text} (--debug shows where)')


def build_runner(cfg: Config) -> Runner:
    """Build the runner of the config, after adapting it to the machine."""
    hooks = cfg.get('default_hooks') or {}
    for name, hook in list(hooks.items()):
        if hook is None and name not in MMENGINE_HOOKS:
            del hooks[name]
    keep_held_out(cfg)
    keep_transforms(cfg)
    grow_segments()
    device = get_device()
    if cfg.launcher == 'slurm' and 'SLURM_JOB_ID' in os.environ:
        # Jobs that share a node must not use the same port.
        port = 20000 + int(os.environ['SLURM_JOB_ID']) % 10000
        os.environ.setdefault('MASTER_PORT', str(port))
    if device == 'cpu' and cfg.launcher != 'none':
        _use_gloo(cfg)
    if 'runner_type' in cfg:
        return RUNNERS.build(cfg)
    shown = hooks.get('progress') or {}
    kind = Runner
    if 'ProgressHook' in str(shown.get('type')):
        kind = QuietRunner  # the hook says what matters
    return kind.from_cfg(cfg)


def keep_held_out(cfg: Config) -> None:
    """Let a resumed run hold out the images that it held out before.

    Runs of versions that held out none go on like that.

    Args:
        cfg (Config): The config of the run, which is changed. The folder of
            the run has the earlier one.
    """
    earlier = _earlier_loader(cfg)
    if earlier and 'held_out' in innermost(cfg.train_dataloader):
        innermost(cfg.train_dataloader).held_out = innermost(earlier).get(
            'held_out', 0)


def keep_transforms(cfg: Config) -> None:
    """Let a resumed run decode and resize images as it did before.

    Fast transforms and those of MMCV and MMPretrain draw the same crops, but
    resize them to slightly different values. A line of the log says what is
    kept.

    Args:
        cfg (Config): The config of the run, which is changed. The folder of
            the run has the earlier one.
    """
    earlier = _earlier_loader(cfg)
    if not earlier:
        return
    pairs = zip(
        innermost(cfg.train_dataloader).get('pipeline') or [],
        innermost(earlier).get('pipeline') or [])
    for new, old in pairs:
        kinds = [str(one['type']).split('.')[-1] for one in (new, old)]
        if kinds == ['LoadImage', 'LoadImage']:
            key, other = 'decoder', DECODER
        elif kinds[0] == kinds[1] and kinds[0] in REPLACED:
            key, other = 'type', old['type']
        else:
            continue
        kept = old.get(key, other)
        if new.get(key, other) != kept:
            print_log(
                f'The run began with {key}={kept!r} of {kinds[0]} and keeps '
                f'it; the config names {new.get(key, other)!r}.',
                logger='current')
            new[key] = kept


def _earlier_loader(cfg: Config) -> Optional[ConfigDict]:
    """How the run that is resumed has loaded its images."""
    before = Path(cfg.get('work_dir') or '.', osp.basename(cfg.filename or ''))
    if not (cfg.get('resume') and cfg.get('train_dataloader')
            and before.is_file()):
        return None
    return Config.fromfile(before).get('train_dataloader')


def build_model(cfg: Config) -> BaseModel:
    """Build the model of a config as the runner does."""
    init_default_scope(cfg.get('default_scope', 'mmpretrain'))
    model = ConfigDict(cfg.model)
    model.setdefault('data_preprocessor', cfg.get('data_preprocessor'))
    return MODELS.build(model)


def _use_gloo(cfg: Config) -> None:
    """Set up the process group that MMEngine sets up only on GPUs."""
    names = RANK_VARIABLES[cfg.launcher]
    missing = [name for name in names if name not in os.environ]
    if missing:
        raise ValueError(
            f'--launcher {cfg.launcher} expects {", ".join(names)} in the '
            f'environment, but got no {", ".join(missing)}: start the job '
            'with tools/dist_train.sh or tools/slurm_train.sh, or leave out '
            '--launcher.')
    rank, world_size, local_rank = (os.environ[name] for name in names)
    os.environ['LOCAL_RANK'] = local_rank
    os.environ.setdefault('MASTER_PORT', '29500')
    if cfg.launcher == 'slurm' and 'MASTER_ADDR' not in os.environ:
        nodes = subprocess.check_output(
            ['scontrol', 'show', 'hostnames', os.environ['SLURM_NODELIST']],
            text=True)
        os.environ['MASTER_ADDR'] = nodes.split()[0]
    options = cfg.get('env_cfg', {}).get('dist_cfg', {})
    dist.init_process_group(
        'gloo',
        rank=int(rank),
        world_size=int(world_size),
        timeout=timedelta(seconds=options.get('timeout', 1800)))

    wrapper = cfg.get('model_wrapper_cfg') or ConfigDict(
        broadcast_buffers=False,
        find_unused_parameters=cfg.get('find_unused_parameters', False))
    wrapper.device_ids = None  # MMEngine names a GPU otherwise.
    cfg.model_wrapper_cfg = wrapper
