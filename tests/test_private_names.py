# Copyright (c) greenmim authors. All rights reserved.
"""Private names of other libraries stand in greenmim/_mmengine.py alone."""
import ast
import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import pytest

import greenmim
from greenmim._mmengine import OVERRIDDEN

PACKAGE = Path(greenmim.__file__).parent
PRIVATE = re.compile(r'_[a-z]\w*$')
INHERITED = {name for names in OVERRIDDEN.values() for name in names}
# Where PyTorch 2.5 has FSDP2.
MODULES = {'torch.distributed._composable.fsdp'}


def private_names(tree, own):
    """Private attributes that are read or set, less those in ``own``."""
    for node in ast.walk(tree):
        name = getattr(node, 'attr', '')
        if isinstance(node, ast.Call) and getattr(
                node.func, 'id', '') in ('getattr', 'hasattr', 'setattr'):
            name = str(getattr(node.args[1], 'value', ''))
        if PRIVATE.match(name) and name not in own and name != '_exit':
            yield name
        if (isinstance(node, ast.ImportFrom) and not node.level
                and not node.module.startswith('greenmim')
                and any(map(PRIVATE.match, node.module.split('.')))
                and node.module not in MODULES):
            yield node.module


def names_defined_in(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            yield node.name
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = getattr(node, 'targets', None) or [node.target]
            for target in targets:
                for part in ast.walk(target):
                    if isinstance(part, ast.Attribute) and isinstance(
                            part.value, ast.Name) and part.value.id == 'self':
                        yield part.attr
                    elif isinstance(part, ast.Name):
                        yield part.id


def test_no_other_file_uses_private_names():
    trees = {
        path: ast.parse(path.read_text(encoding='utf-8'))
        for path in PACKAGE.rglob('*.py')
    }
    own = INHERITED.union(*map(names_defined_in, trees.values()))
    found = {
        str(path.relative_to(PACKAGE)): names
        for path, tree in trees.items() if path.name != '_mmengine.py'
        for names in [sorted(private_names(tree, own))] if names
    }
    assert not found


@pytest.mark.parametrize('line', [
    'path = runner._load_from',
    'runner._resume = True',
    'getattr(runner, "_resume", None)',
    'norms = torch._foreach_norm(tensors)',
    'from torch.utils._pytree import tree_map',
])
def test_uses_are_found(line):
    assert list(private_names(ast.parse(line), INHERITED))


def test_inherited_names_are_listed():
    """And nothing is listed that the library does not have."""
    found = set()
    for module in pkgutil.walk_packages(greenmim.__path__, 'greenmim.'):
        if 'triton' in module.name or module.name.endswith('__main__'):
            continue
        for value in vars(importlib.import_module(module.name)).values():
            if inspect.isclass(value) and value.__module__ == module.name:
                found |= {
                    name
                    for name, member in vars(value).items() if
                    PRIVATE.match(name) and inspect.isfunction(member) and any(
                        name in vars(base) for base in value.__mro__
                        if not base.__module__.startswith('greenmim'))
                }
    assert not found - INHERITED
    for path, names in OVERRIDDEN.items():
        module, _, name = path.rpartition('.')
        source = inspect.getsource(
            getattr(importlib.import_module(module), name))
        assert not [name for name in names if name not in source], path
