# Copyright (c) greenmim authors. All rights reserved.
"""Makes documents and docstrings fit for the site; MkDocs calls it.

The documents are also read in a repository, where links to its files work,
and docstrings in editors, where the notation of Sphinx is common.
"""
import re
from typing import Any

import griffe

LINK = re.compile(r'(!?)\[([^\]]+)\]\((\.\./[^)\s]+)\)')
ROLE = re.compile(r':(?:attr|class|func|math|meth|mod):`~?\.?([^`]+)`')
REFERENCE = re.compile(r'`([^`<]+?)\s+<(https?://[^>]+)>`__?')


def on_page_markdown(markdown: str, page: Any, **kwargs: Any) -> str:
    """Name files outside of the documents, to which no link can lead."""
    depth = page.file.src_uri.count('/') + 1

    def replace(match: re.Match) -> str:
        image, title, target = match.groups()
        if image or target.count('../') < depth:
            return match[0]
        path = target.split('#')[0].lstrip('./')
        name = title.strip('`')
        return f'`{path}`' if name in path else f'{name} (`{path}`)'

    return LINK.sub(replace, markdown)


def to_markdown(docstring: str) -> str:
    """Turn roles, references and literal blocks into Markdown."""
    docstring = ROLE.sub(r'`\1`', docstring)
    docstring = REFERENCE.sub(
        lambda match: f'[{" ".join(match[1].split())}]({match[2]})', docstring)
    return re.sub(r'::$', ':', docstring, flags=re.M)


class MarkdownDocstrings(griffe.Extension):
    """Has all docstrings read as Markdown."""

    def on_instance(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Change the docstring of a module, class, function or attribute."""
        if obj.docstring:
            obj.docstring.value = to_markdown(obj.docstring.value)
