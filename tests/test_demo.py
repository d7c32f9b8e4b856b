# Copyright (c) greenmim authors. All rights reserved.
"""demo/greenmim.ipynb: its cells run in order, and it holds no outputs."""
import json
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

import greenmim
from tests.conftest import CHECKOUT

NOTEBOOK = CHECKOUT / 'demo' / 'greenmim.ipynb'


@pytest.fixture(scope='module')
def cells():
    content = json.loads(NOTEBOOK.read_text('utf-8'))
    return [
        cell for cell in content['cells'] if cell['cell_type'] == 'code'
    ]  # yapf: disable


def test_every_cell_runs(cells, tmp_path, monkeypatch):
    """In one namespace, as in a kernel, with few steps."""
    monkeypatch.chdir(tmp_path)
    plt.close('all')
    plt.switch_backend('Agg')
    scope = {}
    for i, cell in enumerate(cells):
        text = ''.join(cell['source'])
        exec(compile(text, f'cell {i}', 'exec'), scope)
        if 'STEPS' in scope:
            scope['STEPS'] = 2
    assert len(list(Path('photos').iterdir())) == 60
    assert len(scope['run'].losses) >= 1
    assert greenmim.read_run('work_dirs/demo').checkpoint.is_file()
    # Losses, reconstructions, neighbours, maps.
    drawn = [plt.figure(number) for number in plt.get_fignums()]
    assert [len(figure.axes) for figure in drawn] == [1, 1, 20, 5]
    for figure in drawn:
        figure.canvas.draw()
        colours = figure.canvas.buffer_rgba()
        assert len(set(bytes(colours)[::997])) > 10
    assert len(scope['maps']) == 4
    plt.close('all')


def test_outputs_are_stripped(cells):
    assert len(cells) == 7
    for cell in cells:
        assert cell['outputs'] == [] and cell['execution_count'] is None


def test_links_lead_to_pages():
    text = NOTEBOOK.read_text('utf-8')
    for page in ('get_started', 'reconstructions'):
        assert f'../docs/{page}.md' in text
        assert (CHECKOUT / 'docs' / f'{page}.md').is_file()
