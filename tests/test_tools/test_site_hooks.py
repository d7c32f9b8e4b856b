# Copyright (c) greenmim authors. All rights reserved.
"""What the site makes of links and docstrings."""
import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope='module')
def hooks():
    pytest.importorskip('griffe')
    return runpy.run_path(str(ROOT / 'tools' / 'misc' / 'site_hooks.py'))


@pytest.mark.parametrize('uri, text, expected', [
    ('faq.md', 'the [README](../README.md).', 'the `README.md`.'),
    ('faq.md', '[model zoo](../README.md#zoo)', 'model zoo (`README.md`)'),
    ('faq.md', '[`judge`](../greenmim/evaluation/verdict.py)',
     'judge (`greenmim/evaluation/verdict.py`)'),
    ('faq.md', '[Data](data.md#archives)', '[Data](data.md#archives)'),
    ('faq.md', '![picture](images/a.png)', '![picture](images/a.png)'),
    ('api/ops.md', '[Data](../data.md)', '[Data](../data.md)'),
    ('api/ops.md', '[README](../../README.md)', '`README.md`'),
])
def test_links_out_of_the_documents(hooks, uri, text, expected):
    page = SimpleNamespace(file=SimpleNamespace(src_uri=uri))
    assert hooks['on_page_markdown'](text, page=page) == expected


@pytest.mark.parametrize('text, expected', [
    ('see :func:`random_mask`', 'see `random_mask`'),
    ('see :mod:`.packing`', 'see `packing`'),
    (':class:`~greenmim.ops.Halo`', '`greenmim.ops.Halo`'),
    ('`Green\n    ViT <https://a.b/c>`_.', '[Green ViT](https://a.b/c).'),
    ('formula::\n\n    a = b', 'formula:\n\n    a = b'),
    ('`plain` and a::b', '`plain` and a::b'),
])
def test_notation_of_docstrings(hooks, text, expected):
    assert hooks['to_markdown'](text) == expected
