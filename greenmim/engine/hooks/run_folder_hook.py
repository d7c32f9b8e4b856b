# Copyright (c) greenmim authors. All rights reserved.
import logging
import os
import os.path as osp
import re
import shutil
from pathlib import Path
from typing import List, Optional

from mmengine.config import Config
from mmengine.dist import barrier, is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner

from greenmim._mmengine import (checkpoint_to_load, is_resuming, is_training,
                                postpone_config, runner_being_built)
from greenmim.registry import HOOKS

# What a run cannot make again in a moment.
RESULTS = r'((epoch|iter)_\d+|best_.*)\.pth|last_checkpoint|report\.json'
# What else a run writes: reports, settings, logs, batches that failed.
OTHERS = r'report\.(md|png)|learning\.png|config\.py|\d{8}_\d{6}|non_finite'


def results_in(folder: Path) -> List[Path]:
    """The checkpoints and the report of an earlier run in a folder.

    Args:
        folder (Path): It need not exist.
    """
    return _matching(folder, RESULTS)


def check_run_folder(folder: Path) -> None:
    """Refuse a folder that holds the results of an earlier run.

    Args:
        folder (Path): The work folder of a run. It need not exist.

    Raises:
        FileExistsError: If it holds any.
        NotADirectoryError: If it is a file, or in one.
        PermissionError: If nothing can be written there.
    """
    there = next(
        path for path in (folder.absolute(), *folder.absolute().parents)
        if path.exists())
    if not there.is_dir():
        raise NotADirectoryError(
            f'expected a folder for the run, but {there} is a file; name '
            'another')
    if not os.access(there, os.W_OK):
        raise PermissionError(f'expected a folder for the run where files can '
                              f'be written, but {there} is read-only; name '
                              'another')
    found = results_in(folder)
    if found:
        names = ', '.join(path.name for path in found[:3])
        more = f' and {len(found) - 3} more' if len(found) > 3 else ''
        raise FileExistsError(
            f'expected an unused folder for a new run, but {folder} holds '
            f'results of an earlier one ({names}{more}); add --resume to '
            f'continue it, --overwrite to start again (its files move to '
            f'{_unused(folder).name}/ there), or name another folder. '
            'In a config or among --cfg-options these are resume=True and '
            'overwrite=True')


@HOOKS.register_module()
class RunFolderHook(Hook):
    """Keeps a run from damaging what an earlier run left in its folder.

    A folder that holds checkpoints or a report is refused before anything is
    written there. With ``resume=True`` in the config the run in it continues,
    or begins where there is none. With ``overwrite=True`` the files of the
    earlier run are moved to ``replaced_1``, ``replaced_2``, ... in the folder.

    Raises:
        FileExistsError: When training begins in such a folder with neither,
            or resumes a checkpoint of another folder there.
        ValueError: With both, or if the checkpoint to load is one of the
            files to be moved.
    """

    # Before any other hook writes a file.
    priority = 'HIGHEST'

    def __init__(self) -> None:
        self.begun = False
        runner = runner_being_built()
        if runner is not None:
            # Written by `before_run`, where the folder may be used.
            postpone_config(runner)

    def before_run(self, runner: Runner) -> None:
        """Check the folder, then write the settings of the run."""
        folder = Path(runner.work_dir)
        if not is_training(runner):
            # A test leaves the settings of the training as they are.
            name = osp.basename(runner.cfg.filename or '')
            if not (name and (folder / name).exists()):
                Runner.dump_config(runner)
            return
        if self.begun:  # a test after the training, by the same runner
            return
        try:
            self._check(runner, folder)
        except (FileExistsError, ValueError):
            _remove_log(runner)
            raise
        if runner.cfg.get('overwrite'):
            if is_main_process():
                _move_earlier_run(runner, folder)
            barrier()
        _forget_command(runner, folder)
        Runner.dump_config(runner)
        self.begun = True

    def _check(self, runner: Runner, folder: Path) -> None:
        found = [p for place in _places(runner) for p in results_in(place)]
        start = checkpoint_to_load(runner)
        inside = start is not None and osp.realpath(
            osp.expanduser(start)) in map(osp.realpath, found)
        overwrite = runner.cfg.get('overwrite')
        if overwrite and is_resuming(runner):
            raise ValueError(
                'expected one of --resume, which continues the run in '
                f'{folder}, and --overwrite, which replaces it, got both')
        if overwrite and inside:
            raise ValueError(
                f'expected weights from another folder than {folder}, whose '
                f'run is to be overwritten, got load_from={start}; name '
                'another --work-dir')
        if is_resuming(runner):
            if start and not inside and found:
                raise FileExistsError(
                    f'expected a checkpoint of the run in {folder} to '
                    f'resume, got {start}, which would mix two runs; name '
                    'another --work-dir')
        elif not overwrite:
            for place in _places(runner):
                check_run_folder(place)


def _places(runner: Runner) -> List[Path]:
    """The work folder and the local folder of the checkpoints."""
    places = [Path(runner.work_dir)]
    for hook in runner.hooks:
        out_dir: Optional[str] = getattr(hook, 'out_dir', None)
        if out_dir and '://' not in str(out_dir):
            place = Path(out_dir, places[0].resolve().name)
            if place.resolve() != places[0].resolve():
                places.append(place)
    return places


def _matching(folder: Path, pattern: str) -> List[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir()
                  if re.fullmatch(pattern, path.name))


def _unused(folder: Path) -> Path:
    number = 1
    while (folder / f'replaced_{number}').exists():
        number += 1
    return folder / f'replaced_{number}'


def _move_earlier_run(runner: Runner, folder: Path) -> None:
    """Move what an earlier run wrote, and nothing else."""
    pattern = f'{RESULTS}|{OTHERS}'
    if runner.cfg.filename:
        pattern += '|' + re.escape(osp.basename(runner.cfg.filename))
    if not any(results_in(place) for place in _places(runner)):
        return
    for place in _places(runner):
        target = _unused(place)
        for path in _matching(place, pattern):
            if path.name != runner.timestamp:  # the log of this run
                target.mkdir(exist_ok=True)
                path.rename(target / path.name)
        if target.exists():
            runner.logger.warning(
                f'Moved the files of the earlier run to {target}')


def _forget_command(runner: Runner, folder: Path) -> None:
    """Leave out of the written settings what this call alone was told.

    Another run by them would continue or replace this one. A resumed run
    keeps the weights that it once started from.
    """
    cfg = runner.cfg
    for name in 'overwrite', 'resume':
        if name in cfg:
            cfg[name] = False
    earlier = folder / osp.basename(cfg.filename or '')
    if is_resuming(runner) and earlier.is_file():
        cfg.load_from = Config.fromfile(earlier).get('load_from')


def _remove_log(runner: Runner) -> None:
    """Leave nothing of a run that was refused."""
    for handler in list(runner.logger.handlers):
        if isinstance(handler, logging.FileHandler):
            # MMEngine's modules write to the files of the current logger.
            runner.logger.removeHandler(handler)
            handler.close()
    if is_main_process():
        shutil.rmtree(runner.log_dir, ignore_errors=True)
