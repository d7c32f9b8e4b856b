# Copyright (c) greenmim authors. All rights reserved.
"""The command ``greenmim``.

A sub-command is a function of :mod:`greenmim.apis`, whose signature and
docstring say what the command accepts, or the ``main`` of a tool. It is
imported when it is called: the doctor works before anything is installed.
"""
import argparse
import importlib
import inspect
import os
import re
import sys
from contextlib import nullcontext
from difflib import get_close_matches
from pathlib import Path
from typing import (Any, Callable, ContextManager, Dict, List, Literal,
                    Optional, Sequence, Tuple, Union, get_args, get_origin,
                    get_type_hints)

from .errors import one_line
from .options import ReadOptions
from .requirements import requirements

# What each is for, and where it is. A function named main takes its arguments
# as words; the parser of any other one is made from its signature.
COMMANDS: Dict[str, Tuple[str, str]] = {
    'pretrain': ('pre-train a backbone on a folder of images',
                 'apis.pretraining:pretrain'),
    'finetune':
    ('train a classifier on labelled images', 'apis.finetuning:finetune'),
    'features':
    ('compute the features of images', 'apis.image_features:features'),
    'export': ('write the backbone for MMDetection, timm and others',
               'apis.exporting:main'),
    'import':
    ('convert a checkpoint of another library', 'apis.import_checkpoint:main'),
    'reconstruct':
    ('draw what a model sees behind the mask', 'apis.reconstruct:main'),
    'knn': ('classify labelled images by their nearest neighbours',
            'apis.knn:main'),
    'compare': ('does pre-training help on labelled images?',
                'apis.compare:main'),
    'forecast': ('hours, memory and energy that a config will take',
                 'benchmarking.forecast:main'),
    'statistics': ('what values images hold, and the config for them',
                   'apis.statistics:main'),
    'prepare': ('write smaller copies of images, for long runs',
                'apis.prepare:prepare'),
    'browse': ('show images as the training sees them', 'apis.browse:main'),
    'recipes': ('list the backbones that can be pre-trained',
                'apis.backbones:print_recipes'),
    'doctor': ('check the installation and print what fixes it',
               'doctor:main'),
}
# The modules that read a checkpoint, and so know `--trust-checkpoint`.
READ_CHECKPOINTS = tuple(
    f'apis.{name}'
    for name in ('pretraining', 'finetuning', 'image_features', 'exporting',
                 'import_checkpoint', 'reconstruct', 'knn', 'compare'))
TRUST = ('--trust-checkpoint', 'read the checkpoint even if it holds objects '
         'that can run code when they are loaded: do this only with a file '
         'whose origin you trust')
USAGE = 'greenmim COMMAND [arguments]; greenmim COMMAND --help explains one'


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run a sub-command; without one, report on the installation.

    Args:
        argv (Sequence[str], optional): The words of the command line after
            the program. Defaults to None, those of this process.

    Returns:
        int: The exit code.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if words and words[0] in ('-h', '--help'):
        print(f'usage: {USAGE}\n\ncommands:')
        for name, (purpose, _) in COMMANDS.items():
            print(f'  {name:<12}{purpose}')
        print('\nAn error is one line; with --debug it has its traceback.')
        return 0
    # The doctor's own words, as in `python -m greenmim downstream`.
    if not words or (words[0] not in COMMANDS
                     and all(requirements(word) for word in words)):
        words.insert(0, 'doctor')
    name = words.pop(0)
    if name not in COMMANDS:
        close = get_close_matches(name, COMMANDS, 1)
        hint = f'; did you mean {close[0]!r}?' if close else ''
        print(
            f'greenmim: expected a command, one of {", ".join(COMMANDS)}, '
            f'got {name!r}{hint}',
            file=sys.stderr)
        return 2
    debug = _take(words, '--debug')
    module, _, function = COMMANDS[name][1].partition(':')
    prog = f'greenmim {name}'
    try:
        with _trusting(f'greenmim.{module}', words):
            run = getattr(
                importlib.import_module(f'greenmim.{module}'), function)
            if function == 'main':
                return run(words, prog) or 0
            call(run, prog, words)
    # What the user can mend; anything else is a fault of ours.
    except Exception as error:
        text = None if debug else one_line(error)
        if text is None:
            raise
        sys.stdout.flush()
        print(f'greenmim {name}: {text}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f'greenmim {name}: interrupted', file=sys.stderr)
        return 130
    return 0


def call(function: Callable, prog: str, words: Sequence[str]) -> Any:
    """Call a function with the arguments of a command line."""
    arguments = vars(parser_of(function, prog).parse_args(words))
    return function(**arguments)


def parser_of(function: Callable, prog: str) -> argparse.ArgumentParser:
    """The parser of a function's arguments.

    Arguments without a default are positional, others are options of the same
    name. Their help is their description in the docstring.

    Args:
        function (Callable): Its signature is annotated, and its docstring has
            an ``Args`` section.
        prog (str): The command.
    """
    text = inspect.cleandoc(function.__doc__ or '')
    about, _, rest = text.partition('\nArgs:\n')
    explained = descriptions(rest)
    parser = argparse.ArgumentParser(
        prog,
        description=to_plain(about),
        formatter_class=argparse.RawDescriptionHelpFormatter)
    hints = get_type_hints(function)
    for name, parameter in inspect.signature(function).parameters.items():
        options: Dict[str, Any] = dict(help=explained[name])
        options.update(options_of(hints[name]))
        if parameter.default is parameter.empty:
            options.setdefault('metavar', name.upper())
            parser.add_argument(name, **options)
        else:
            flag = '--' + name.strip('_').replace('_', '-')
            parser.add_argument(
                flag, dest=name, default=parameter.default, **options)
    parser.add_argument(
        '--debug',
        action='store_true',
        default=argparse.SUPPRESS,
        help='show the traceback of an error')
    if function.__module__.endswith(READ_CHECKPOINTS):
        add_trust_option(parser)
    return parser


def descriptions(text: str) -> Dict[str, str]:
    """What the Args section of a docstring says of each argument."""
    section = re.split(r'\n(?=\S)', text)[0]
    entries = re.findall(r'^ {4}(\w+) \(.*?\): (.*(?:\n {5,}.*)*)', section,
                         re.M)
    return {
        name: to_plain(' '.join(entry.split())).replace('%', '%%')
        for name, entry in entries
    }


def to_plain(text: str) -> str:
    """Documentation without the notation of Sphinx."""
    text = re.sub(r':\w+:`[~.]*([^`]+)`', r'\1', text)
    return re.sub(r'\s*\(?Defaults to None\.\)?', '', text).replace('``', '')


def options_of(hint: Any) -> Dict[str, Any]:
    """The options of argparse for a type annotation."""
    kinds = [kind for kind in get_args(hint) if kind is not type(None)]
    if get_origin(hint) is Union and len(kinds) == 1:  # Optional
        return options_of(kinds[0])
    origin = get_origin(hint)
    if origin is Literal:
        return dict(choices=get_args(hint), type=type(get_args(hint)[0]))
    if origin is dict:
        return dict(action=ReadOptions, nargs='+', metavar='KEY=VALUE')
    if origin in (list, tuple) or getattr(origin, '__name__',
                                          '') == 'Sequence':
        return dict(nargs='+', type=get_args(hint)[0])
    if origin is Union and int in kinds:  # or a word
        return dict(type=number_or_word, metavar='N|WORD')
    if hint is bool:
        return dict(action='store_true')
    return dict(type=hint if hint in (int, float) else os.fspath)


def number_or_word(text: str) -> Union[int, str]:
    """A number where the text is one."""
    return int(text) if re.fullmatch(r'[+-]?\d+', text) else text


def add_trust_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--trust-checkpoint`` to the help of a command or tool.

    The command and :func:`run_tool` take it before the parser sees it.

    Args:
        parser (argparse.ArgumentParser): Its parser.
    """
    parser.add_argument(
        TRUST[0],
        action='store_true',
        default=argparse.SUPPRESS,
        help=TRUST[1])


def _take(words: List[str], option: str) -> bool:
    """Remove an option from the words of a command line, if it is there."""
    found = option in words
    if found:
        words.remove(option)
    return found


def _trusting(module: str, words: List[str]) -> ContextManager:
    """Take ``--trust-checkpoint`` of a module that reads a checkpoint."""
    if not (module.endswith(READ_CHECKPOINTS) and _take(words, TRUST[0])):
        return nullcontext()
    from .weights import trusting
    return trusting()


def run_tool(main: Callable[..., Any]) -> None:
    """Run the ``main`` of a tool under ``tools/``; errors are one line.

    ``--debug`` shows the traceback.

    Args:
        main (Callable): Called without arguments.
    """
    debug = _take(sys.argv, '--debug')
    try:
        with _trusting(main.__module__, sys.argv):
            main()
    except Exception as error:
        text = None if debug else one_line(error)
        if text is None:
            raise
        sys.stdout.flush()
        sys.exit(f'{Path(sys.argv[0]).name}: {text} (--debug shows where)')
