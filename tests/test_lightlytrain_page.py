# Copyright (c) greenmim authors. All rights reserved.
"""This project's lines of docs/lightlytrain.md."""
import shlex
from pathlib import Path

from greenmim.command import main
from tests.documents import Page, lines_of
from tests.micro import save_images

PAGE = Page('docs/lightlytrain.md')
COMMANDS, = PAGE.take('bash')
PYTHON, = PAGE.take('python')


def test_the_job(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_images(Path('photos'), 4, (150, 140))
    for line in lines_of(COMMANDS):
        assert main(shlex.split(line)[1:]) == 0, line
    exec(PYTHON, {})
    for suffix in '', '_python':
        table = Path(f'features{suffix}.csv').read_text().splitlines()
        assert len(table) == 5
        assert Path(f'weights{suffix}.safetensors').is_file()
    # Both have computed the same.
    assert Path('features.csv').read_text() == Path(
        'features_python.csv').read_text()
