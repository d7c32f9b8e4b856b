# Copyright (c) greenmim authors. All rights reserved.
"""The command: its words, and parsers made from signatures."""
import importlib
import inspect
import os
import subprocess
import sys
from typing import Dict, Literal, Optional, Sequence, Union

import pytest

import greenmim
from greenmim.command import COMMANDS, main, parser_of
from greenmim.options import AsTyped
from tests.conftest import CHECKOUT


def function_of(name):
    module, _, function = COMMANDS[name][1].partition(':')
    return getattr(importlib.import_module(f'greenmim.{module}'), function)


def example(run: Union[str, os.PathLike],
            data: str,
            *,
            steps: Optional[int] = None,
            batch_size: Union[int, Literal['auto'], None] = None,
            window_size: Optional[Sequence[int]] = None,
            target: Literal['pixel', 'hog'] = 'hog',
            channels: Literal[1, 3] = 3,
            set: Optional[Dict[str, object]] = None,
            resume: bool = False) -> None:
    """Do something.

    And more of it.

    Args:
        run (str | PathLike): The run.
        data (str): The folder of images, 100 % of them, see
            :func:`greenmim.load`.
        steps (int, optional): The length. Defaults to None, the usual one.
        batch_size (int | str, optional): Images. Defaults to None.
        window_size (Sequence[int], optional): Windows. Defaults to None.
        target (str): What is predicted. Defaults to ``'hog'``.
        channels (int): 1 or 3.
        set (dict, optional): Settings. Defaults to None.
        resume (bool): Continue.
    """


def test_a_parser_is_made_from_a_signature():
    parser = parser_of(example, 'greenmim example')
    args = parser.parse_args([
        'a run', 'my photos', '--channels', '1', '--steps', '5',
        '--batch-size', 'auto', '--window-size', '7', '14', '--set',
        'a.b=1, 2', 'c=d', '--resume'
    ])
    assert vars(args) == dict(
        run='a run',
        data='my photos',
        channels=1,
        steps=5,
        batch_size='auto',
        window_size=[7, 14],
        target='hog',
        set={
            'a.b': '1, 2',
            'c': 'd'
        },
        resume=True)
    assert isinstance(args.set['a.b'], AsTyped)
    assert parser.parse_args(['r', 'x', '--batch-size', '8']).batch_size == 8
    text = ' '.join(parser.format_help().split())
    assert 'Do something. And more of it.' in text
    assert '100 % of them, see greenmim.load.' in text
    assert '--steps STEPS The length. Defaults to None, the usual one.' in text
    assert '--batch-size N|WORD Images.' in text
    for wrong in (['x', '--target',
                   'nothing'], ['x', '--set',
                                'novalue'], ['r', 'x', '--steps',
                                             'five'], ['r']):
        with pytest.raises(SystemExit):
            parser.parse_args(wrong)


@pytest.mark.parametrize('name', COMMANDS)
def test_every_command_explains_itself(name, capsys):
    with pytest.raises(SystemExit) as end:
        main([name, '--help'])
    assert not end.value.code
    printed = capsys.readouterr().out
    assert printed.startswith(f'usage: greenmim {name}')
    function = function_of(name)
    if function.__name__ != 'main':
        for argument in inspect.signature(function).parameters:
            assert argument.replace('_', '-') in printed.lower()


def test_words_that_are_no_command(capsys):
    assert main(['--help']) == 0
    printed = capsys.readouterr().out
    assert all(f'\n  {name} ' in printed for name in COMMANDS)
    assert main(['pretrian', 'photos']) == 2
    error = capsys.readouterr().err
    assert "got 'pretrian'; did you mean 'pretrain'?" in error
    assert main(['--verbose']) == 2


def test_an_error_is_one_line(capsys):
    assert main(['features', 'no run', 'no images']) == 1
    error = capsys.readouterr().err
    assert error.startswith('greenmim features: expected the folder of a run')
    assert error.count('\n') == 1 and "no run" in error
    with pytest.raises(FileNotFoundError):
        main(['features', 'no run', 'no images', '--debug'])


def test_the_package_stays_light():
    script = ('import sys, greenmim; assert "pretrain" in dir(greenmim); '
              'assert not {"torch", "mmengine", "numpy"} & set(sys.modules)')
    subprocess.run([sys.executable, '-c', script], cwd=CHECKOUT, check=True)
    with pytest.raises(AttributeError, match="no attribute 'train'"):
        greenmim.train
    for name in greenmim.__all__:
        assert getattr(greenmim, name)
