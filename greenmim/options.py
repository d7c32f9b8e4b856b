# Copyright (c) greenmim authors. All rights reserved.
"""Values of settings on a command line, as they were typed.

MMEngine's ``DictAction`` removes blanks and quotation marks, and cuts text at
its commas, so that ``data_root=my photos`` names another folder.
"""
import argparse
import ast
import re
import shlex
from typing import Any, Dict, Optional

# Settings that hold a path, which is text whatever it looks like.
PATHS = {
    'ann_file', 'checkpoint', 'data_root', 'index_dir', 'init_cfg.checkpoint',
    'load_from', 'out_dir', 'trusted', 'work_dir'
}
WORDS = {'true': True, 'false': False, 'none': None}


class AsTyped(str):
    """Text of a command line that is yet to be read as a value."""


class ReadOptions(argparse.Action):
    """Collects ``KEY=VALUE`` in a dict, for :func:`read_value`."""

    def __call__(self,
                 parser: argparse.ArgumentParser,
                 namespace: argparse.Namespace,
                 values: Any,
                 option_string: Optional[str] = None) -> None:
        found: Dict[str, Any] = dict(getattr(namespace, self.dest) or {})
        for pair in values:
            key, sign, value = pair.partition('=')
            if not sign or not key:
                parser.error(f'{option_string}: expected KEY=VALUE, got '
                             f'{pair!r}')
            found[key] = AsTyped(value)
        setattr(namespace, self.dest, found)


def read_options(options: Dict[str, Any], config: Any) -> Dict[str, Any]:
    """The values of options, some of which may be text as it was typed.

    Args:
        options (dict): Values by the keys of a config, nested ones joined by
            dots.
        config (Config): What the options will override: text stays text where
            it holds text.

    Raises:
        ValueError: If text could be read as a list or as itself.
    """
    return {
        key:
        read_value(value, key, current(config, key)) if isinstance(
            value, AsTyped) else value
        for key, value in options.items()
    }


def current(config: Any, key: str) -> Any:
    """The present value of a setting; None if there is none."""
    for part in key.split('.'):
        try:
            config = config[int(part) if part.isdigit() else part]
        except (KeyError, IndexError, TypeError, ValueError):
            return None
    return config


def read_value(text: str, key: str, now: Any) -> Any:
    """Read the text of a value.

    Python's literals are numbers, lists, and text in quotation marks. Of the
    rest, ``a,b`` and ``[a,b]`` are lists of words, as in MMEngine, unless the
    setting holds text or a path. Everything else is text, with its blanks,
    commas and quotation marks.

    Raises:
        ValueError: If it has commas beside blanks or quotation marks, so that
            it may be a list or text.
    """
    text = str(text)
    if text.lower() in WORDS:
        return WORDS[text.lower()]
    is_path = key.split('.')[-1] in PATHS
    try:
        value = ast.literal_eval(text)
        if not is_path or isinstance(value, (str, list, tuple)):
            bare = isinstance(value, tuple) and text[0] != '('
            return list(value) if bare else value
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        pass
    if is_path or isinstance(now, str):
        return text
    listed = re.fullmatch(r'\[.*\]|\(.*\)', text) is not None
    if ',' not in text and not listed:
        return text
    packed = re.sub(r'\s*([,\[\]()])\s*', r'\1', text) if listed else text
    if re.search(r'[\s\'"]', packed):
        words = [word.strip(' \'"') for word in text.strip('[]()').split(',')]
        raise ValueError(
            f'{key}={text}: expected text or a list, but this may be both. '
            f'Write {shlex.quote(f"{key}={text!r}")} for the text, or '
            f'{shlex.quote(f"{key}={words}")} for the list')
    quoted = re.sub(r'[^\[\](),]+', lambda word: repr(plain(word[0])), packed)
    value = ast.literal_eval(quoted)
    return list(value) if isinstance(value, tuple) and not listed else value


def plain(word: str) -> Any:
    """A word of a list: a number or the like where it is one."""
    try:
        return WORDS[word.lower()] if word.lower() in WORDS else \
            ast.literal_eval(word)
    except (ValueError, SyntaxError):
        return word
