# Copyright (c) greenmim authors. All rights reserved.
import pytest

from tests.conftest import CHECKOUT

TOOLS = [
    file for file in sorted((CHECKOUT / 'tools').rglob('*.py'))
    if "'__main__'" in file.read_text('utf-8')
]


@pytest.mark.parametrize('tool', TOOLS, ids=lambda tool: tool.stem)
def test_help(run_tool, capsys, tool):
    with pytest.raises(SystemExit) as end:
        run_tool(tool, '--help')
    assert not end.value.code
    assert capsys.readouterr().out.startswith('usage: ')


# The first word of each is a file that does not exist.
READERS = [
    ('analysis_tools/benchmark', ),
    ('analysis_tools/browse_dataset', ),
    ('analysis_tools/forecast', ),
    ('benchmarks/accuracy_over_compute', ),
    ('benchmarks/compare_methods', ),
    ('benchmarks/compare_with_scratch', ),
    ('misc/cache_targets', '--out', 'out'),
    ('misc/print_config', ),
    ('model_converters/export_backbone', '--to', 'mmdet', '--out', 'out'),
    ('train', ),
    ('test', 'none.pth'),
]


@pytest.mark.parametrize('words', READERS, ids=lambda words: words[0])
def test_an_error_is_one_line(run_tool, words):
    """Whose traceback is shown with ``--debug``."""
    name, *others = words
    tool = CHECKOUT / 'tools' / f'{name}.py'
    with pytest.raises(SystemExit) as end:
        run_tool(tool, 'none.py', *others)
    text = str(end.value.code)
    assert text.startswith(f'{tool.name}: ') and 'none.py' in text
    assert '\n' not in text and text.endswith('(--debug shows where)')
    with pytest.raises((OSError, ValueError), match='none.py'):
        run_tool(tool, 'none.py', *others, '--debug')
