# Copyright (c) greenmim authors. All rights reserved.
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
from mmengine.registry import HOOKS
from mmpretrain.structures import DataSample


def batch(*skipped):
    """A batch with one untouched sample and one for each dict."""
    samples = [DataSample()]
    for paths in skipped:
        samples.append(
            DataSample(
                metainfo=dict(skipped_images={
                    path: f'cannot read {path}'
                    for path in paths
                })))
    return dict(inputs=None, data_samples=samples)


@pytest.fixture
def runner(tmp_path):
    return SimpleNamespace(logger=Mock(), log_dir=str(tmp_path))


def test_warns_once_and_lists_all_at_the_end(runner, tmp_path):
    hook = HOOKS.build(dict(type='greenmim.UnreadableImageHook', max_listed=2))
    hook.after_train_iter(runner, 0, batch(['b', 'a'], ['c']))
    hook.after_train_iter(runner, 1, batch(['a']))
    warned = [call.args[0] for call in runner.logger.warning.call_args_list]
    assert warned == [f'Skipped: cannot read {path}' for path in 'bac']

    hook.after_train(runner)
    report = runner.logger.warning.call_args.args[0]
    assert report.startswith('3 unreadable images were skipped')
    assert report.endswith('cannot read a\ncannot read b\n... and 1 more')
    lines = (tmp_path / 'skipped_images.txt').read_text().splitlines()
    assert lines == [f'cannot read {path}' for path in 'abc']


def test_silent_when_all_is_well(runner, tmp_path):
    hook = HOOKS.build(dict(type='greenmim.UnreadableImageHook'))
    hook.after_train_iter(runner, 0, batch())
    hook.after_train_iter(runner, 1, dict(inputs=None))
    hook.after_train(runner)
    runner.logger.warning.assert_not_called()
    assert not list(tmp_path.iterdir())
