# Copyright (c) greenmim authors. All rights reserved.
"""``greenmim compare RUN DATA``."""
import json
import re
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

import greenmim
from greenmim.benchmarking.comparison import runs
from greenmim.benchmarking.comparison.base import verdicts
from greenmim.command import main
from tests.micro import save_classes, save_images

OPTIONS = [
    '--labels-per-class', '4', '--seeds', '0', '1', '--work-dir', 'out',
    '--finetune-options', 'train_cfg.max_iters=1'
]


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """A run, and labelled images of two classes."""
    folder = tmp_path_factory.mktemp('to compare')
    save_images(folder / 'photos', 4, (150, 140))
    save_classes(folder / 'labelled', [(200, 40, 40), (40, 200, 40)], 10, 0)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        greenmim.pretrain(
            'photos', backbone='swin-micro', out='a run', steps=2,
            batch_size=2)  # yapf: disable
    # Random weights are trained for as long, which is the longer the busier
    # the machine was.
    report = folder / 'a run' / 'report.json'
    figures = json.loads(report.read_text('utf-8'))
    assert figures['hours'] > 0
    report.write_text(json.dumps(dict(figures, hours=.5 / 3600)), 'utf-8')
    return folder


def test_the_weights_of_a_run(folder, monkeypatch, capsys):
    """They are compared, and nothing is pre-trained."""
    monkeypatch.chdir(folder)
    for name in 'WARMUP', 'TIMED', 'ROUNDS':
        monkeypatch.setattr(runs, name, 1)
    assert main(['compare', 'a run', 'labelled', *OPTIONS]) == 0
    printed = capsys.readouterr().out
    assert 'run 1 of 13: speed' in printed and 'min left: ' in printed
    report = json.loads(Path('out/comparison.json').read_text('utf-8'))
    run = json.loads(Path('a run/report.json').read_text('utf-8'))
    assert report['settings']['run'] == 'a run/iter_2.pth'
    assert report['settings']['budget'] == run['hours'] * 3600
    results = {(one['method'], one['seed']): one for one in report['results']}
    speed = report['seconds_per_iteration']['scratch']
    more = max(1, round(run['hours'] * 3600 / speed))
    weights = greenmim.load('a run').state_dict()
    for seed in 0, 1:
        one = results['pre-trained', seed]
        assert one['pretraining']['images'] == run['images'] == 4
        assert one['fine_tuning_run']['iterations'] == 1
        assert results['scratch, longer',
                       seed]['fine_tuning_run']['iterations'] == 1 + more
        used = torch.load(f'out/backbones/pre-trained_{seed}.pth')
        assert used.keys() == weights.keys()
        assert all(used[name].equal(weights[name]) for name in used)
    assert not list(Path('out/runs').glob('*/*.pth'))
    table = Path('out/comparison.md').read_text('utf-8')
    assert 'The weights are those of a run/iter_2.pth.' in table
    seconds = f'{run["hours"] * 3600:.1f}'
    assert f'| pre-trained | 4 | {seconds} |  |' in table

    # The same command has nothing left to do; another run is not mixed in.
    assert main(['compare', 'a run', 'labelled', *OPTIONS]) == 0
    assert 'run 1 of' not in capsys.readouterr().out
    assert main(['compare', 'labelled', *OPTIONS]) == 1
    assert 'name another --work-dir' in capsys.readouterr().err


def test_what_the_fine_tuning_is(folder, tmp_path, monkeypatch):
    """Of `greenmim finetune`, for as many epochs of these labels."""
    from greenmim.apis.compare import RunComparison
    monkeypatch.chdir(folder)
    comparison = RunComparison(
        Path('labelled'), {}, None, tmp_path, None, 4, run=Path('a run'))
    cfg = comparison.finetuning_config('scratch', 0, 'fine_tuning')
    assert cfg.train_cfg.max_iters == 30  # epochs of 8 images in a batch
    assert cfg.train_dataloader.batch_size == 8
    assert cfg.param_scheduler[0].end == cfg.param_scheduler[1].begin == 3
    assert 'end' not in cfg.param_scheduler[1]
    assert cfg.model.backbone.init_cfg is None
    cfg = comparison.finetuning_config('pre-trained', 0, 'fine_tuning')
    assert cfg.model.backbone.arch == Config.fromfile(
        'a run/config.py').model.backbone.arch
    assert cfg.model.backbone.init_cfg.checkpoint == str(
        tmp_path / 'backbones' / 'pre-trained_0.pth')

    without = RunComparison(
        Path('labelled'), {}, None, tmp_path, 0., 4, run=Path('a run'))
    assert without.methods == ['scratch', 'pre-trained']


def test_a_run_without_a_report(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'bare.pth').write_bytes(
        (folder / 'a run' / 'iter_2.pth').read_bytes())
    words = ['compare', 'bare.pth', str(folder / 'labelled')]
    assert main(words) == 1
    assert 'give the seconds by --budget' in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*words, '--pretrain', 'a=b.py'])
    assert 'expected RUN or --pretrain' in capsys.readouterr().err


@pytest.mark.parametrize('words, message', [
    ([], 'expected the images, as DATA or as --data DATA'),
    (['a run', 'labelled', '--data', 'more'], 'expected the images'),
    (['labelled', '--pretrain', 'scratch=a.py'], "other than 'scratch'"),
    (['labelled', '--pretrain', 'mine'], "NAME=CONFIG.*got 'mine'"),
])
def test_words_that_do_not_fit(capsys, words, message):
    with pytest.raises(SystemExit):
        main(['compare', *words])
    assert re.search(message, ' '.join(capsys.readouterr().err.split()))


@pytest.mark.parametrize('gains, word', [
    ((1, 2), 'better than "scratch"'),
    ((-1, -2), 'worse than "scratch"'),
    ((-1, 2), 'not clearly better or worse than "scratch"'),
])
def test_a_judgement(gains, word):
    results = [
        dict(method=method, seed=seed, fine_tuning=50 + gain, **more)
        for method, both, more in (('scratch', (0, 0), {}),
                                   ('run', gains, dict(pretraining={})))
        for seed, gain in enumerate(both)
    ]
    assert verdicts(results) == [f'After fine-tuning, run is {word}.']
    # One seed does not tell.
    assert verdicts([one for one in results if one['seed'] == 0]) == []
