# Copyright (c) greenmim authors. All rights reserved.
"""Reads the config that MMEngine records in checkpoints.

It is Python text, which is never executed: only calls of ``dict`` and literals
are read.
"""
import ast
from typing import Any, Dict


def read_recorded(text: Any, name: str) -> Dict[str, Any]:
    """Read the dict that ``meta['cfg']`` of a checkpoint assigns to a name.

    It is empty if there is none or it cannot be read.
    """
    value = read_value(text, name)
    return value if isinstance(value, dict) else {}


def read_value(text: Any, name: str) -> Any:
    """Read what ``meta['cfg']`` assigns to a name; None if that fails."""
    if not isinstance(text, str):
        return None
    try:
        tree = ast.parse(text)
        for node in tree.body:
            if isinstance(node, ast.Assign) and [
                    getattr(target, 'id', None) for target in node.targets
            ] == [name]:
                return _evaluate(node.value)
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        pass
    return None


def _evaluate(node: ast.AST) -> Any:
    if isinstance(node, ast.Call):
        if getattr(node.func, 'id', None) != 'dict' or node.args:
            raise ValueError('expected calls of dict with keywords only')
        return {str(kw.arg): _evaluate(kw.value) for kw in node.keywords}
    if isinstance(node, ast.Dict):
        return {
            ast.literal_eval(key) if key else None: _evaluate(value)
            for key, value in zip(node.keys, node.values)
        }
    if isinstance(node, (ast.List, ast.Tuple)):
        return [_evaluate(item) for item in node.elts]
    return ast.literal_eval(node)
