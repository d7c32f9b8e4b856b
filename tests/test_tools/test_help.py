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
