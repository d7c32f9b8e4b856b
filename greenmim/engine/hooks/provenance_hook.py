# Copyright (c) greenmim authors. All rights reserved.
import json
import subprocess
import sys
from pathlib import Path
from typing import Dict, Optional

from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmengine.utils.dl_utils import collect_env

from greenmim import __version__
from greenmim.registry import HOOKS


@HOOKS.register_module()
class ProvenanceHook(Hook):
    """Records what a run was started from.

    ``environment.json`` beside the log holds the command, the versions, the
    commit of the checkout and its uncommitted changes. The runner itself
    writes the resolved config.
    """

    @master_only
    def before_train(self, runner: Runner) -> None:
        environment: Dict[str, Optional[str]] = {
            key: str(value)
            for key, value in collect_env().items()
        }
        environment.update(
            command=' '.join(sys.argv),
            greenmim=__version__,
            git_commit=_git('rev-parse', 'HEAD'),
            git_changes=_git('status', '--short'))
        path = Path(runner.log_dir, 'environment.json')
        path.write_text(json.dumps(environment, indent=1) + '\n')


def _git(*arguments: str) -> Optional[str]:
    """The output of git for the checkout; None without one."""
    folder = Path(__file__).resolve().parent
    try:
        return subprocess.run(['git', *arguments],
                              cwd=folder,
                              check=True,
                              stdout=subprocess.PIPE,
                              stderr=subprocess.DEVNULL,
                              text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
