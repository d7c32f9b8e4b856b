# Copyright (c) greenmim authors. All rights reserved.
"""Markdown tables, and the parts of documents that are generated."""
import re
from pathlib import Path
from typing import Sequence


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ['---'] * len(header), *rows]
    return '\n'.join(f'| {" | ".join(line)} |' for line in lines)


def marked(content: str, mark: str) -> str:
    """The content between two lines that mark it as generated."""
    return f'<!-- {mark}:begin -->\n{content}\n<!-- {mark}:end -->'


def write_marked(file: Path, content: str, mark: str) -> None:
    """Replace what a file has between two lines, see :func:`marked`.

    Raises:
        ValueError: If the file does not have these lines.
    """
    text = file.read_text('utf-8')
    pattern = marked('.*?', mark).replace('\n', '\n?')
    if not re.search(pattern, text, re.S):
        raise ValueError(f'expected the lines <!-- {mark}:begin --> and '
                         f'<!-- {mark}:end --> in {file}')
    block = marked(content, mark)
    file.write_text(
        re.sub(pattern, lambda _: block, text, flags=re.S), 'utf-8')
