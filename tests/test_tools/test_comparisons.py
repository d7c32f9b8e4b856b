# Copyright (c) greenmim authors. All rights reserved.
"""Comparisons run from images to table, and compare what they claim to."""
import json
import shutil
import statistics
from collections import Counter
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmpretrain.registry import MODELS
from PIL import Image

from greenmim.benchmarking.comparison import base, over_compute, runs, scratch
from greenmim.benchmarking.comparison.base import (mean_and_spread, over_seeds,
                                                   still_falls, verdicts)
from greenmim.benchmarking.comparison.data import (find_labelled_folder,
                                                   write_labels)
from greenmim.benchmarking.comparison.frozen import (STRENGTHS, accuracy,
                                                     linear_probe)
from greenmim.benchmarking.comparison.runs import memory_of_step, save_backbone
from greenmim.benchmarking.results import marked
from tests.backbones.checks import errors, output_and_grads, randomise
from tests.backbones.swin_twin import DenseSwinTwin
from tests.conftest import CHECKOUT
from tests.micro import save_classes

TOOLS = CHECKOUT / 'tools' / 'benchmarks'
with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(TOOLS)
    import compare_methods

RESULT = (
    CHECKOUT / 'benchmarks' /
    'help_swin-micro-p2-w4_32px_r0.6_bs64_fp32_epyc-1-core.json')
DOCUMENT = CHECKOUT / 'docs' / 'does_it_help.md'
CONFIGS = CHECKOUT / 'configs' / 'benchmarks' / 'small_images'

LOADING = dict(batch_size=4, num_workers=0, persistent_workers=False)
COMMON = {
    'param_scheduler.0.end': 1,
    'param_scheduler.1.begin': 0,
    'default_hooks.logger.interval': 1,
    'model.backbone.drop_path_rate': 0.1,
    'model.backbone.arch.embed_dims': 8,
    'model.backbone.arch.depths': [1, 1, 1],
    'model.backbone.arch.num_heads': [1, 1, 2],
    **{
        f'train_dataloader.{key}': value
        for key, value in LOADING.items()
    }
}
OPTIONS = dict(
    pretrain_options={
        **COMMON, 'model.neck.in_channels': 32
    },
    finetune_options={
        **COMMON, 'train_cfg.max_iters': 2,
        'model.head.in_channels': 32,
        **{
            f'test_dataloader.{key}': value
            for key, value in LOADING.items()
        }
    })


@pytest.fixture(scope='module')
def labelled(tmp_path_factory) -> Path:
    """Images of two classes, red and blue, and noise on both."""
    folder = tmp_path_factory.mktemp('labelled') / 'deeper' / 'images'
    colours = (200, 50, 50), (50, 50, 200)
    for split, count in ('train', 6), ('test', 3):
        save_classes(folder / split, colours, count, size=(40, 36), spread=30)
    return folder


@pytest.fixture
def compare(run_tool, tmp_path, monkeypatch):
    """Run a tool with micro models; the folder that it leaves."""

    def run(tool: str, data: Path, *arguments) -> Path:
        # Formatting the logged configs takes longer than all else.
        monkeypatch.setattr(Config, 'pretty_text', property(repr))
        monkeypatch.setattr(runs, 'WARMUP', 1)
        monkeypatch.setattr(runs, 'TIMED', 1)
        options = []
        for name, values in OPTIONS.items():
            options.append('--' + name.replace('_', '-'))
            options += [
                f'{key}={value}'.replace(' ', '')
                for key, value in values.items()
            ]
        run_tool(TOOLS / f'{tool}.py', data, '--work-dir', tmp_path / 'out',
                 '--budget', .05, *arguments, *options)
        return tmp_path / 'out'

    return run


def check_picture(file: Path) -> None:
    picture = Image.open(file).convert('RGB')
    assert len(picture.getcolors(10**6)) > 5  # not blank


def times_of(out: Path) -> dict:
    """When each result was written."""
    return {
        file: file.stat().st_mtime_ns
        for file in (out / 'results').iterdir()
    }


def test_from_archive_to_table(compare, labelled, tmp_path, capsys):
    archive = shutil.make_archive(
        str(tmp_path / 'images'), 'zip', labelled.parents[1])
    arguments = ('compare_with_scratch', Path(archive), '--labels-per-class',
                 4, '--seeds', 3, 5)
    out = compare(*arguments, '--minutes', 0)
    assert 'stopped before speed' in capsys.readouterr().out
    assert not (out / 'results').exists()

    compare(*arguments)
    files = times_of(out)
    assert len(files) == 1 + 2 * (2 + 1 + 3 + 3)
    written = json.loads((out / 'comparison.json').read_text())
    assert str(archive) in written['command']
    assert {'hardware', 'date', 'torch'} <= set(written['environment'])
    assert [(result['method'], result['seed'])
            for result in written['results']] == list(
                product(['scratch', 'scratch, longer', 'greenmim', 'simmim'],
                        [3, 5]))
    fitting = {
        name: max(1, round(.05 / seconds))
        for name, seconds in written['seconds_per_iteration'].items()
    }
    for result in written['results']:
        method, tuning = result['method'], result['fine_tuning_run']
        longer = method == 'scratch, longer'
        for measure in ['fine_tuning'] + ['linear', 'knn'] * (not longer):
            assert 0 <= result[measure] <= 100
        assert tuning['iterations'] == 2 + longer * fitting['scratch']
        if method.startswith('scratch'):
            assert 'pretraining' not in result
            continue
        run = result['pretraining']
        assert run['iterations'] == fitting[method]
        assert run['images'] == 4 * run['iterations']
        assert np.isfinite(run['loss']).all() and run['seconds'] > 0
    check_picture(out / 'comparison.png')
    table = (out / 'comparison.md').read_text()
    assert 'greenmim − scratch' in table and '4 labels of a class' in table

    # A run whose result is missing is done again, and no other.
    lost = out / 'results' / 'simmim_5_frozen.json'
    before = json.loads(lost.read_text())
    lost.unlink()
    compare(*arguments)
    assert json.loads(lost.read_text()) == before
    assert {*files.items()} - {*times_of(out).items()} == {(lost, files[lost])}

    with pytest.raises(SystemExit, match='labels_per_class changed'):
        compare(*arguments, '--labels-per-class', 3)

    # Other labels need no other pre-trainings.
    other = ('--labels-per-class', 3, '--work-dir', tmp_path / 'other',
             '--pretrained', out)
    with pytest.raises(SystemExit, match='budget differ'):
        compare(*arguments, *other, '--budget', 1)
    shutil.rmtree(tmp_path / 'other')
    compare(*arguments, *other)
    again = json.loads((tmp_path / 'other' / 'comparison.json').read_text())
    for result, first in zip(again['results'], written['results']):
        assert result.get('pretraining') == first.get('pretraining')
        assert result['fine_tuning_run']['loss'] != first['fine_tuning_run'][
            'loss']
    assert not list((tmp_path / 'other' / 'runs').glob('*_pretraining'))


def test_every_finished_run_is_written(comparison, tmp_path, monkeypatch):
    comparison.seeds = [3]
    done = dict(accuracy=50.)
    monkeypatch.setattr(comparison, 'measure_speed', lambda: dict(scratch=1.))
    monkeypatch.setattr(comparison, 'fine_tuning', lambda method, seed: done)
    monkeypatch.setattr(comparison, 'frozen', lambda method, seed: {})
    monkeypatch.setattr(comparison, 'pretraining', lambda method, seed: 1 / 0)
    written = []
    with pytest.raises(ZeroDivisionError):
        comparison.do_runs(after_each=lambda: written.append(
            [one['method'] for one in comparison.report()['results']]))
    both = ['scratch', 'scratch, longer']
    assert written == [[], [], both[:1], both]


def test_with_labels(compare, labelled):
    arguments = ('compare_methods', labelled, '--seeds', 3,
                 '--labels-per-class', 2)
    out = compare(*arguments)
    report = json.loads((out / 'comparison.json').read_text('utf-8'))
    methods = ['greenmim', 'simmim', 'fastmim', 'green x fast']
    assert list(report['methods']) == methods
    assert [(one['method'], one['seed']) for one in report['results']
            ] == [(method, 3) for method in ['scratch', *methods]]
    for result in report['results']:
        assert all(0 <= result[key] <= 100 for key in ('linear', 'knn'))
        assert 'fine_tuning' not in result
        if result['method'] == 'scratch':
            assert 'pretraining' not in result
            continue
        cost = report['methods'][result['method']]
        assert cost['images_per_second'] * cost[
            'seconds_per_iteration'] == pytest.approx(4)
        assert cost['memory'] > 1e4
        run = result['pretraining']
        assert run['iterations'] == max(
            1, round(.05 / cost['seconds_per_iteration']))
        assert len(run['loss']) == run['iterations']
        assert np.isfinite(run['loss']).all()
    assert '| scratch |  |  |  |  |  |  |' in (
        out / 'comparison.md').read_text('utf-8')
    check_picture(out / 'comparison.png')
    # The budget is spent on training alone.
    watched = ('report.md', 'best_*.pth', 'learning.png')
    assert not any(list(out.rglob(name)) for name in watched)
    assert len(list(out.rglob('scalars.json'))) >= len(methods)

    # Fine-tuning that is asked for later is added to what there is.
    before = times_of(out)
    compare(*arguments, '--fine-tuning')
    assert before.items() <= times_of(out).items()
    report = json.loads((out / 'comparison.json').read_text('utf-8'))
    assert all(one['fine_tuning_run']['iterations'] == 2
               for one in report['results'])
    header = (out / 'comparison.md').read_text('utf-8').splitlines()[1]
    assert '| fine-tuning |' in header


def test_without_labels(compare, labelled):
    arguments = ('compare_methods', labelled / 'train', '--seeds', 0, 1,
                 '--pretrain', f'one={compare_methods.METHODS["greenmim"]}')
    out = compare(*arguments)
    report = json.loads((out / 'comparison.json').read_text('utf-8'))
    table = (out / 'comparison.md').read_text('utf-8')
    assert [(one['method'], one['seed'])
            for one in report['results']] == [('one', 0), ('one', 1)]
    assert table.splitlines()[1].endswith('| CPU seconds | loss |')
    assert 'accuracy' not in table and 'over 2 seeds' in table
    with pytest.raises(SystemExit, match='--fine-tuning needs labels'):
        compare(arguments[0], labelled / 'train' / 'class0', '--fine-tuning')


def test_memory_is_of_the_step(labelled, tmp_path):
    """It grows linearly with the images, and with what is computed."""

    def memory(method: str, batch_size: int) -> int:
        loader = dict(LOADING, batch_size=batch_size)
        options = {f'train_dataloader.{k}': v for k, v in loader.items()}
        options['train_dataloader.dataset.data_root'] = str(labelled)
        return memory_of_step(
            runs.read_config(compare_methods.METHODS[method], options, 0,
                             tmp_path))

    one, two, three = (memory('simmim', 32 * k) for k in (1, 2, 3))
    assert three - two == two - one
    weights = MODELS.build(
        Config.fromfile(compare_methods.METHODS['simmim']).model)
    nbytes = sum(tensor.nbytes for tensor in weights.parameters())
    # What no image adds to: at the peak there are no gradients yet.
    assert nbytes <= one - (two - one) <= 1.02 * nbytes
    assert memory('greenmim', 96) < three


@pytest.fixture
def comparison(labelled, tmp_path):
    """A comparison of which nothing has run yet."""
    return scratch.ScratchComparison(labelled, {
        name: compare_methods.METHODS[name]
        for name in ('greenmim', 'simmim')
    }, compare_methods.FINETUNING, tmp_path, **OPTIONS)


def test_fine_tuning_starts_from_the_given_weights(comparison):
    backbones = {}
    for method in ('scratch', 'greenmim', 'simmim'):
        if method != 'scratch':
            cfg = comparison.pretraining_config(method, 0, 'pretraining')
            pretrained = MODELS.build(cfg.model).backbone
            save_backbone(pretrained,
                          comparison.finetuning_config('scratch', 0, 'new'),
                          comparison.backbone_file(method, 0))
        cfg = comparison.finetuning_config(method, 0, 'fine_tuning')
        model = MODELS.build(cfg.model)
        model.init_weights()
        assert model.head.num_classes == 2
        backbones[method] = model.backbone.state_dict()
        if method != 'scratch':
            expected = pretrained.state_dict()
            for name, tensor in backbones[method].items():
                assert torch.equal(tensor, expected[name]), name
    assert backbones['scratch'].keys() == backbones['simmim'].keys()


@pytest.mark.parametrize('option, name', [
    (dict(depths=[1, 1, 2]), r'stages\.2\.blocks\.1\.norm1\.weight'),
    (dict(num_heads=[1, 1, 1]), r'stages\.2.*relative_position_bias_table'),
])
def test_another_architecture_is_refused(comparison, option, name, tmp_path):
    classifier = comparison.finetuning_config('scratch', 0, 'fine_tuning')
    cfg = comparison.pretraining_config('greenmim', 0, 'pretraining')
    cfg.model.backbone.arch.update(option)
    pretrained = MODELS.build(cfg.model.backbone)
    with pytest.raises(ValueError, match=name):
        save_backbone(pretrained, classifier, tmp_path / 'backbone.pth')
    assert not (tmp_path / 'backbone.pth').exists()


def test_speed_is_of_steps_alone_and_in_turns(monkeypatch):
    """A stopwatch that only the steps move."""
    clock, steps = SimpleNamespace(now=0.), []

    def runner(cfg: SimpleNamespace) -> SimpleNamespace:

        def step(batch, optim_wrapper):
            steps.append(cfg.seconds)
            # The first of a turn are slow.
            clock.now += cfg.seconds + 100 * (batch < runs.WARMUP)

        return SimpleNamespace(
            default_scope=SimpleNamespace(scope_name='mmpretrain'),
            build_dataloader=lambda cfg: range(1000),
            build_optim_wrapper=lambda cfg: None,
            model=SimpleNamespace(
                init_weights=lambda: None, train=lambda: None,
                train_step=step))

    monkeypatch.setattr(runs, 'build_runner', runner)
    monkeypatch.setattr(runs, 'clock', lambda: clock.now)
    measured = runs.seconds_per_iteration({
        name:
        SimpleNamespace(
            seconds=seconds, train_dataloader=None, optim_wrapper=None)
        for name, seconds in (('slow', 3.), ('fast', 1.))
    })
    assert measured == dict(slow=pytest.approx(3), fast=pytest.approx(1))
    turn = runs.WARMUP + runs.TIMED
    assert steps == ([3.] * turn + [1.] * turn) * runs.ROUNDS


def test_linear_probe_regularises_few_labels_more():
    """Few noisy labels call for strong regularisation, many for weak."""
    pytest.importorskip('sklearn')
    rng = torch.Generator().manual_seed(0)
    centres = torch.randn(3, 40, generator=rng)

    def draw(number: int) -> tuple:
        labels = torch.arange(number) % 3
        noise = torch.randn(number, 40, generator=rng)
        return 10 + 5 * (.4 * centres[labels] + noise), labels

    queries, answers = draw(3000)
    confidence = []
    for number in (12, 3000):
        bank, labels = draw(number)
        scores = linear_probe(bank, labels, queries, 3)
        assert scores.shape == (3000, 3)
        assert (scores.exp().sum(1) - 1).abs().max() < 1e-5
        confidence.append(scores.max(1).values.exp().mean())
        expected = max(
            accuracy(fixed(bank, labels, queries, C), answers)
            for C in STRENGTHS)
        assert accuracy(scores, answers) > expected - 5
    assert confidence[0] < confidence[1]


def fixed(bank, labels, queries, C) -> torch.Tensor:
    """The probe of one strength, on features standardised by hand."""
    from sklearn.linear_model import LogisticRegression
    mean, std = bank.mean(0), bank.std(0, correction=0)
    probe = LogisticRegression(C=C).fit((bank - mean) / std, labels)
    return torch.from_numpy(probe.predict_proba((queries - mean) / std))


def test_linear_probe_needs_two_labels_of_every_class():
    pytest.importorskip('sklearn')
    with pytest.raises(ValueError, match='2 labelled images .* got 1'):
        linear_probe(
            torch.eye(3), torch.tensor([0, 0, 1]), torch.zeros(1, 3), 2)


def test_random_weights_may_have_a_recipe_of_their_own(labelled, tmp_path):
    name = 'swin-2stages-p2-w4_1xb64-bf16-coslr'
    options = {
        'optim_wrapper.paramwise_cfg.layer_decay_rate': 1.,
        'train_cfg.max_iters': 3
    }
    comparison = scratch.ScratchComparison(
        data=labelled,
        pretrain=dict(
            greenmim=str(CONFIGS / f'greenmim_{name}-6000i_folder-32px.py')),
        finetune=str(CONFIGS / f'{name}-ld0.75-cutmix-2600i_folder-32px.py'),
        finetune_options={'train_cfg.max_iters': 2},
        scratch_options=options,
        work_dir=tmp_path,
        labels_per_class=2)
    recipes = {}
    for method in comparison.methods:
        cfg = comparison.finetuning_config(method, 0, 'any')
        decay = cfg.optim_wrapper.paramwise_cfg.layer_decay_rate
        recipes[method] = (decay, cfg.train_cfg.max_iters)
        assert (cfg.model.backbone.init_cfg is None) == (method != 'greenmim')
    assert recipes == {
        'scratch': (1., 3),
        'scratch, longer': (1., 3),
        'greenmim': (.75, 2)
    }
    assert comparison.settings()['scratch_options'] == options


def test_accuracy_is_in_percent():
    scores = torch.tensor([[1., 2.], [3., 1.], [0., 5.], [9., 2.]])
    assert accuracy(scores, torch.tensor([1, 0, 0, 0])) == 75


def test_labels(labelled, tmp_path):
    lists = []
    for seed in (0, 0, 1):
        file = tmp_path / f'{len(lists)}.txt'
        assert write_labels(labelled, 4, seed, file) == 8
        lists.append(file.read_text().split('\n'))
    assert lists[0] == lists[1] != lists[2]
    lines = [line.split() for line in lists[0] if line]
    assert len({path for path, _ in lines}) == 8
    assert Counter(label for _, label in lines) == {'0': 4, '1': 4}
    # Classes are numbered by the order of their names.
    assert all(
        path.startswith(f'class{label}/') and (labelled / 'train' /
                                               path).is_file()
        for path, label in lines)
    assert write_labels(labelled, None, 0, tmp_path / 'all.txt') == 12
    with pytest.raises(ValueError, match="7 images of class 'class0', f"):
        write_labels(labelled, 7, 0, tmp_path / 'seven.txt')


def test_folders_that_do_not_fit(labelled, tmp_path):
    (tmp_path / 'train' / 'red').mkdir(parents=True)
    with pytest.raises(ValueError, match='beside .*there is neither'):
        find_labelled_folder(tmp_path, tmp_path)
    (tmp_path / 'test' / 'blue').mkdir(parents=True)
    with pytest.raises(ValueError, match='same class folders'):
        find_labelled_folder(tmp_path, tmp_path)
    (tmp_path / 'file').write_text('no archive')
    with pytest.raises(ValueError, match='neither'):
        find_labelled_folder(tmp_path / 'file', tmp_path)
    assert find_labelled_folder(labelled.parent, tmp_path) == labelled
    # Classes alone, in a folder of a folder; a list.
    save_classes(tmp_path / 'x' / 'y', [40, 200], 1)
    found = find_labelled_folder(tmp_path / 'x', tmp_path / 'x')
    assert found == tmp_path / 'x' / 'y'
    (tmp_path / 'list.txt').write_text('a.png 0')
    found = find_labelled_folder(tmp_path / 'list.txt', tmp_path)
    assert found == tmp_path / 'list.txt'


def test_verdict_and_spread():
    """A loss that still falls, one that is flat, and a single seed."""
    falls = [[i, 1 / (i + 1)**.5] for i in range(40)]
    flat = [[i, .4 + .6 * .5**i] for i in range(40)]
    assert still_falls([loss for _, loss in falls])
    assert not still_falls([loss for _, loss in flat])
    assert not still_falls([1., .9])
    results = [
        dict(method=name, seed=0, pretraining=dict(loss=loss))
        for name, loss in (('a', falls), ('b', flat))
    ]
    sentence, = verdicts(results)
    assert sentence.startswith(
        'Too short to tell') and ' of a still' in sentence
    assert verdicts(results[1:]) == []
    assert '±' not in over_seeds(1) and '3 seeds' in over_seeds(3)
    assert mean_and_spread([50.]) == '50.0'


def small_report() -> dict:
    machine = dict.fromkeys(
        ('hardware', 'torch', 'mmpretrain', 'greenmim', 'date'), 'some')
    run = dict(iterations=7, images=56, seconds=2., cpu_seconds=1.)
    results = [
        dict(
            method=method,
            seed=seed,
            fine_tuning=value,
            linear=10.,
            knn=10.,
            fine_tuning_run=run,
            pretraining=dict(images=1234, seconds=20. + seed, cpu_seconds=18.))
        for method, values in (('scratch', (50., 52.)), ('green', (55., 59.)))
        for seed, value in enumerate(values)
    ]
    del results[0]['pretraining'], results[1]['pretraining']
    results.insert(
        2,
        dict(
            method='scratch, longer',
            seed=0,
            fine_tuning=54.,
            fine_tuning_run=dict(run, iterations=20)))
    machine['clock'] = 'wall-clock time'
    settings = dict(data='images', labels_per_class=None, budget=20)
    return dict(environment=machine, settings=settings, results=results)


def test_table():
    lines = scratch.table(small_report()).splitlines()
    assert lines[2] == ('| scratch | none |  |  | 51.0 ± 1.4 | 10.0 ± 0.0 | '
                        '10.0 ± 0.0 |')
    assert lines[3] == '| scratch, longer | none |  |  | 54.0 |  |  |'
    assert lines[4].startswith(
        '| green | 1,234 | 20.5 ± 0.7 | 18.0 ± 0.0 | 57.0 ± 2.8 |')
    assert lines[5].startswith('| green − scratch |  |  |  | +6.0 ± 1.4 |')
    assert len(lines) == 6
    text = scratch.text(small_report())
    assert '"scratch, longer" has 20 iterations' in text
    assert 'all labels' in text and '7 iterations, 56 images' in text


def test_only_the_marked_part_is_replaced(tmp_path):
    table, result = tmp_path / 'new' / 'page.md', tmp_path / 'result.json'
    base.write_report(dict(one=1), 'first', result, table)
    assert json.loads(result.read_text()) == dict(one=1)
    table.write_text(f'before\n{table.read_text()}after\n')
    base.write_report({}, r'second \1', result, table)
    expected = f'before\n{marked(r"second 1", base.MARK)}\nafter\n'
    assert table.read_text() == expected.replace(' 1', r' \1')
    table.write_text('no marks')
    with pytest.raises(ValueError, match='comparison:begin'):
        base.write_report({}, 'third', result, table)


@pytest.mark.parametrize('method, size', [('greenmim', (40, 32)),
                                          ('green x fast', (24, 24))])
def test_masked_forward_of_three_stages_is_exact(method, size):
    """Units of 8 pixels; at 24 px the last maps are smaller than a window."""
    cfg = Config.fromfile(compare_methods.METHODS[method]).model.backbone
    model = randomise(MODELS.build(cfg)).double().eval()
    assert model.unit_size == 8
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, 3, *size, generator=generator, dtype=torch.double)
    rows, cols = (side // 8 for side in size)
    order = torch.rand(2, rows * cols, generator=generator).argsort(1)
    mask = (order >= rows * cols * 0.4).view(2, rows, cols)
    actual = output_and_grads(lambda x: model(x, mask), model, images)
    expected = output_and_grads(lambda x: DenseSwinTwin(model)(x, mask), model,
                                images)
    assert max(errors(actual, expected)) <= 1e-10


def test_methods_differ_in_what_their_names_say():
    green, fast, both = (
        Config.fromfile(compare_methods.METHODS[method])
        for method in ('greenmim', 'fastmim', 'green x fast'))
    assert both.model.head == fast.model.head
    assert both.model.head.target.type == 'greenmim.HOGTarget'
    assert both.model.type == green.model.type != fast.model.type
    assert both.model.backbone == fast.model.backbone
    assert both.train_dataloader == fast.train_dataloader
    for cfg, side in ((green, 32), (fast, 24), (both, 24)):
        pipeline = cfg.train_dataloader.dataset.pipeline
        assert pipeline[1].scale == cfg.model.backbone.img_size == side
    for key in ('optim_wrapper', 'param_scheduler', 'train_cfg'):
        assert green[key] == fast[key] == both[key]


def test_document_shows_the_result():
    result = json.loads(RESULT.read_text('utf-8'))
    text = DOCUMENT.read_text('utf-8')
    assert marked(scratch.text(result), base.MARK) in text
    picture = DOCUMENT.parent / 'images' / 'does_it_help.png'
    assert f'images/{picture.name}' in text
    assert picture.stat().st_size < 200_000


def test_document_shows_accuracy_over_compute():
    files = sorted(RESULT.parent.glob('help_cifar10-25k_*.json'))
    reports = [json.loads(file.read_text('utf-8')) for file in files]
    table = marked(over_compute.table(reports), 'over-compute')
    assert reports and table in DOCUMENT.read_text('utf-8')


def test_pretraining_beats_scratch_beyond_the_spread():
    """What the document claims, from the committed result."""
    result = json.loads(RESULT.read_text('utf-8'))
    groups = base.by_method(result['results'])
    for measure in base.MEASURES:
        green, scratch = ([result[measure] for result in groups[method]]
                          for method in ('greenmim', 'scratch'))
        assert len(green) == len(scratch) >= 3
        gain = statistics.mean(green) - statistics.mean(scratch)
        assert gain > statistics.stdev(green) + statistics.stdev(scratch)


def test_over_compute(run_tool, tmp_path):
    """Two budgets of a comparison in one table and one plot."""
    short, long = small_report(), small_report()
    for result in long['results']:
        result['fine_tuning'] += 10
        if 'pretraining' in result:
            result['pretraining'] = dict(
                result['pretraining'], cpu_seconds=180.)
            del result['linear']
    lines = over_compute.table([short, long]).splitlines()
    assert lines[2:] == [
        '| all | scratch | 2 | 0.0 | 0.0 | 51.0 ± 1.4 | 10.0 ± 0.0 |',
        '| all | scratch, longer | 1 | 0.0 | 0.0 | 54.0 | not measured |',
        '| all | scratch | 2 | 0.0 | 0.0 | 61.0 ± 1.4 | 10.0 ± 0.0 |',
        '| all | scratch, longer | 1 | 0.0 | 0.0 | 64.0 | not measured |',
        '| all | green | 2 | 0.3 | 0.3 | 57.0 ± 2.8 | 10.0 ± 0.0 |',
        '| all | green | 2 | 3.0 | 3.0 | 67.0 ± 2.8 | not measured |',
    ]
    files = []
    for number, report in enumerate((short, long)):
        files.append(tmp_path / f'{number}.json')
        files[-1].write_text(json.dumps(report))
    page = tmp_path / 'page.md'
    page.write_text(f'before\n{marked("", "over-compute")}\nafter\n')
    run_tool(TOOLS / 'accuracy_over_compute.py', *files, '--table', page,
             '--plot', tmp_path / 'plot.png')
    table = over_compute.table([short, long])
    assert page.read_text() == (
        f'before\n{marked(table, "over-compute")}\nafter\n')
    check_picture(tmp_path / 'plot.png')
