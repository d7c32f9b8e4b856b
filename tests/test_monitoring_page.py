# Copyright (c) greenmim authors. All rights reserved.
"""The page "Is it learning?", from top to bottom."""
import re
import sys
from pathlib import Path
from unittest.mock import MagicMock

from mmengine.visualization import Visualizer

from greenmim.visualization import MLflowBackend
from tests.documents import Page, run_line, short_run
from tests.micro import save_images, scalars_of

PAGE = Page('docs/monitoring.md')
# The test goes through all blocks, and fails for what it does not know.
for language in 'bash', 'python':
    PAGE.take(language)


def run(run_tool, line):
    if 'train.py' in line:
        run_line(run_tool, line, *short_run(4))
    elif 'forecast.py' in line:
        line += ' --steps 1 --warmup 1 --cfg-options'
        run_line(run_tool, line, *short_run(4))
    else:
        run_line(run_tool, line)
    for file in Path('work_dirs').rglob('iter_4.pth'):
        file.rename(file.with_name('iter_600.pth'))


def measured(work_dir):
    lines = scalars_of(Path('work_dirs', work_dir))
    return [line for line in lines if 'learning/loss' in line]


def test_from_top_to_bottom(workspace, run_tool, monkeypatch, capsys):
    # These would start services; test_logging_backends.py looks closer.
    for name in 'wandb', 'mlflow':
        monkeypatch.setitem(sys.modules, name, MagicMock())
    for name in 'held_out', 'own':
        save_images(Path('data', name), 3, (140, 140), seed=len(name))
    assert PAGE.write_configs() == ['pictures.py', 'logged.py']
    for line in PAGE.commands():
        run(run_tool, line)

    runs = {name: measured(name) for name in ('watched', 'held_out',
                                              'pictures')}  # yapf: disable
    for lines in runs.values():
        assert [line['step'] for line in lines] == [0, 4]
    # Other images, other figures; the same run otherwise
    first = {name: lines[0]['learning/loss'] for name, lines in runs.items()}
    assert first['watched'] == first['pictures'] != first['held_out']
    assert list(Path('work_dirs/watched').glob('best_training_iter_*.pth'))
    log = next(Path('work_dirs/watched').rglob('*.log')).read_text()
    example = re.search(r'^Learning after .*$', PAGE.text, re.M).group()
    first, last = re.findall(r'Learning after .*', log)
    assert 'too early to tell (the first measurement)' in first
    # The verdict of four iterations may be another than the page's.
    ends = [
        re.sub(r'-?\d+(\.\d+)?', '#', line).split('Training loss')[1]
        for line in (example, last)
    ]
    assert ends[0] == ends[1]
    pictures = Path('work_dirs/pictures').rglob('reconstruction_*.png')
    assert sorted(p.stem[-1] for p in pictures) == ['0', '4']
    page = Path('work_dirs/watched/reconstructions.html').read_text()
    assert page.count('<img src="data:') == 36
    samples = Path('work_dirs/samples.html').read_text()
    assert samples.count('data/own/') == 3
    assert Path('work_dirs/groups.png').is_file()
    assert 'kg CO2e (60 W, as given)' in capsys.readouterr().out
    assert list(Path('work_dirs/tensorboard').rglob('events.out.tfevents*'))
    backend, = (
        backend for backend in
        Visualizer.get_current_instance()._vis_backends.values()
        if isinstance(backend, MLflowBackend))
    steps = [
        call.args[1] for call in backend.experiment.log_metrics.call_args_list
        if 'learning/loss' in call.args[0]
    ]
    assert steps == [0, 4]
