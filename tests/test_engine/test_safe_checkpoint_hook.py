# Copyright (c) greenmim authors. All rights reserved.
import enum
import pickle
import uuid
from collections import OrderedDict, deque

import numpy as np
import pytest
import torch
from mmengine.dataset import BaseDataset
from mmengine.evaluator import BaseMetric
from mmengine.logging import HistoryBuffer
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from torch import nn

from greenmim.engine import SafeCheckpointHook
from greenmim.engine.checkpoints.safe_checkpoint_hook import OMITTED, to_plain
from greenmim.weights import read_checkpoint


class Colour(enum.IntEnum):
    RED = 1


class Points(BaseDataset):
    """Sixteen points on a line, with NumPy in the meta information."""

    METAINFO = dict(scale=np.float64(2.), palette=np.arange(3), names=('a', ))

    def load_data_list(self):
        return [dict(x=float(i)) for i in range(16)]


class Line(BaseModel):
    """Learns a slope; its buffer shows that buffers survive, too."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(1)
        self.slope = nn.Linear(1, 1)

    def forward(self, x, sample_idx, mode='tensor'):
        y = self.slope(self.norm(x.float()[:, None]))
        if mode == 'loss':
            return dict(loss=(y - 2 * x[:, None].float()).square().mean())
        return [float(value) for value in y]


class Spread(BaseMetric):

    def process(self, data_batch, data_samples):
        self.results.extend(data_samples)

    def compute_metrics(self, results):
        return dict(spread=np.float32(max(results) - min(results)))


class ScalingOptimWrapper(OptimWrapper):
    """Keeps a gradient scaler as MMEngine's wrapper for GPUs does."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.loss_scaler = torch.amp.GradScaler('cpu', growth_interval=3)

    def update_params(self, loss, *args, **kwargs):
        self.loss_scaler.scale(loss).backward()
        self.loss_scaler.step(self.optimizer)
        self.loss_scaler.update()
        self.zero_grad()

    def state_dict(self):
        return dict(
            super().state_dict(), loss_scaler=self.loss_scaler.state_dict())

    def load_state_dict(self, state_dict):
        self.loss_scaler.load_state_dict(state_dict.pop('loss_scaler'))
        super().load_state_dict(state_dict)


def build(work_dir,
          epochs,
          hook=None,
          resume=False,
          load_from=None,
          model=Line,
          ema=True,
          wrapper=ScalingOptimWrapper,
          accumulative_counts=1,
          **optimizer):
    loader = dict(
        batch_size=4,
        num_workers=0,
        dataset=dict(type=Points, pipeline=[]),
        sampler=dict(type='DefaultSampler', shuffle=True),
        collate_fn=dict(type='default_collate'))
    torch.manual_seed(0)
    return Runner(
        model(),
        str(work_dir),
        train_dataloader=loader,
        train_cfg=dict(by_epoch=True, max_epochs=epochs),
        val_dataloader=loader,
        val_cfg=dict(),
        val_evaluator=dict(type=Spread),
        optim_wrapper=dict(
            type=wrapper,
            accumulative_counts=accumulative_counts,
            optimizer=dict(type='AdamW', lr=0.1, **optimizer)),
        param_scheduler=[
            dict(type='LinearLR', start_factor=0.1, end=8, by_epoch=False),
            # Keeps a bound method in its state.
            dict(
                type='OneCycleLR',
                eta_max=0.1,
                total_steps=64,
                end=64,
                by_epoch=False)
        ],
        default_hooks=dict(
            logger=dict(type='LoggerHook', interval=1),
            checkpoint=hook or dict(
                type=SafeCheckpointHook,
                max_keep_ckpts=2,
                interval=1,
                save_best='spread',
                rule='greater',
                published_keys=['meta', 'state_dict'])),
        custom_hooks=[dict(type='EMAHook')] if ema else [],
        resume=resume,
        load_from=load_from,
        randomness=dict(seed=0),
        log_level='WARNING',
        experiment_name=uuid.uuid4().hex)


def assert_equal(value, expected):
    """Equal up to the last bit, and of the same plain types."""
    assert type(value) is type(expected)
    if isinstance(value, dict):
        assert value.keys() == expected.keys()
        for key in value:
            assert_equal(value[key], expected[key])
    elif isinstance(value, (list, tuple)):
        assert len(value) == len(expected)
        for pair in zip(value, expected):
            assert_equal(*pair)
    elif isinstance(value, torch.Tensor):
        assert torch.equal(value, expected)
    else:
        assert value == expected


def load(path):
    return torch.load(path, weights_only=True)


@pytest.fixture(scope='module')
def uninterrupted(tmp_path_factory):
    """The work folder of a run of four epochs."""
    work_dir = tmp_path_factory.mktemp('uninterrupted')
    build(work_dir, epochs=4).train()
    return work_dir


def test_resumed_run_equals_uninterrupted_run(uninterrupted, tmp_path):
    build(tmp_path, epochs=2).train()
    runner = build(tmp_path, epochs=4, resume=True)
    runner.train()

    checkpoint, expected = (
        load(folder / 'epoch_4.pth') for folder in (tmp_path, uninterrupted))
    for key in ('state_dict', 'ema_state_dict', 'optimizer',
                'param_schedulers'):
        assert_equal(checkpoint[key], expected[key])
    assert checkpoint['optimizer']['loss_scaler']['scale'] != 65536.
    assert checkpoint['state_dict']._metadata['norm'] == dict(version=2)
    losses = runner.message_hub.get_scalar('train/loss')
    assert isinstance(losses, HistoryBuffer)
    assert losses.data[0].shape == (16, )
    assert_equal(checkpoint['message_hub']['log_scalars']['train/loss'],
                 expected['message_hub']['log_scalars']['train/loss'])


def test_accumulated_gradients_are_resumed(tmp_path):
    """The second of four epochs ends between two updates, in iteration 8."""
    options = dict(wrapper=OptimWrapper, accumulative_counts=3, ema=False)
    hook = dict(type=SafeCheckpointHook, interval=1)
    build(tmp_path / 'whole', 4, hook, **options).train()
    path = tmp_path / 'whole' / 'epoch_2.pth'
    saved, expected = load(path), load(path.with_name('epoch_4.pth'))
    assert saved['gradients'].keys() == dict(Line().named_parameters()).keys()
    assert any(gradient.any() for gradient in saved['gradients'].values())
    assert 'gradients' not in expected  # of the last iteration, an update

    def resume(path):
        work_dir = tmp_path / path.stem
        build(
            work_dir, 4, hook, resume=True, load_from=str(path),
            **options).train()
        return load(work_dir / 'epoch_4.pth')

    resumed = resume(path)
    for key in 'state_dict', 'optimizer':
        assert_equal(resumed[key], expected[key])
    del saved['gradients']
    torch.save(saved, tmp_path / 'without.pth')
    with pytest.raises(AssertionError):
        assert_equal(
            resume(tmp_path / 'without.pth')['state_dict'],
            expected['state_dict'])


def test_what_the_parent_keeps_and_publishes(uninterrupted):
    names = {path.name.split('-')[0] for path in uninterrupted.glob('*.pth')}
    best = load(uninterrupted / 'epoch_4.pth')['message_hub']['runtime_info']
    best = best['best_ckpt'].rsplit('/', 1)[1]
    assert names == {
        'epoch_3.pth', 'epoch_4.pth', 'epoch_4', best, best[:-len('.pth')]
    }
    published, = uninterrupted.glob('epoch_4-*.pth')
    assert load(published).keys() == {'meta', 'state_dict'}
    last = (uninterrupted / 'last_checkpoint').read_text()
    assert last == str(uninterrupted / 'epoch_4.pth')


@pytest.fixture(scope='module')
def unsafe(tmp_path_factory):
    """What MMEngine's own hook writes; a scheduler there keeps functions."""
    work_dir = tmp_path_factory.mktemp('unsafe')
    build(work_dir, epochs=2, hook=dict(type='CheckpointHook')).train()
    return work_dir / 'epoch_2.pth'


def test_what_else_mmengine_writes_is_read(unsafe, tmp_path):
    content = torch.load(unsafe, weights_only=False)
    del content['param_schedulers']
    path = tmp_path / 'without_schedulers.pth'
    torch.save(content, path)
    with pytest.raises(pickle.UnpicklingError):
        load(path)  # so it holds more than plain types
    logs = read_checkpoint(path)['message_hub']['log_scalars']
    for name, log in content['message_hub']['log_scalars'].items():
        assert logs[name].mean() == log.mean(), name


def test_unsafe_file_is_refused(unsafe, tmp_path):
    runner = build(tmp_path, 4, resume=True, load_from=str(unsafe))
    with pytest.raises(ValueError) as error:
        runner.train()
    for part in (str(unsafe), 'OneCycleParamScheduler', '--trust-checkpoint',
                 f'default_hooks.checkpoint.trusted={unsafe}'):
        assert part in str(error.value)
    assert '\n' not in str(error.value)
    # Trust in one file does not extend to another.
    other = tmp_path / 'other.pth'
    other.write_bytes(unsafe.read_bytes())
    hook = dict(type=SafeCheckpointHook, trusted=str(other))
    runner = build(tmp_path, 4, hook, resume=True, load_from=str(unsafe))
    with pytest.raises(ValueError, match='could run code'):
        runner.train()


def test_trusted_file_is_resumed(unsafe, uninterrupted, tmp_path):
    hook = dict(type=SafeCheckpointHook, trusted=str(unsafe))
    runner = build(tmp_path, 4, hook, resume=True, load_from=str(unsafe))
    runner.train()
    assert runner.message_hub.get_scalar('train/loss').data[0].shape == (16, )
    assert_equal(
        load(tmp_path / 'epoch_4.pth')['state_dict'],
        load(uninterrupted / 'epoch_4.pth')['state_dict'])


def test_text_in_file_is_not_executed(uninterrupted, tmp_path):
    checkpoint = load(uninterrupted / 'epoch_4.pth')
    proof = tmp_path / 'proof'
    checkpoint['meta']['config'] = f'x = open({str(proof)!r}, "w").close()'
    torch.save(checkpoint, tmp_path / 'hostile.pth')
    build(
        tmp_path, 5, resume=True,
        load_from=str(tmp_path / 'hostile.pth')).train()
    assert (tmp_path / 'epoch_5.pth').exists()
    assert not proof.exists()


class Wide(Line):
    """Weights of another shape."""

    def __init__(self):
        super().__init__()
        self.slope = nn.Linear(1, 2)


class Deep(Line):
    """One layer more."""

    def __init__(self):
        super().__init__()
        self.more = nn.Linear(1, 1)


@pytest.mark.parametrize('before, now, message', [
    (Line, Wide, r'2 tensors .*: slope.bias should .* \(2,\), and has \(1,\)'),
    (Line, Deep, r'2 tensors .*: more.bias should .* \(1,\), and has None'),
    (Deep, Line, r'2 tensors .*: more.bias should .* None, and has \(1,\)'),
])
def test_another_model_is_refused(tmp_path, before, now, message):
    build(tmp_path, 1, model=before, ema=False).train()
    with pytest.raises(ValueError, match=message):
        build(tmp_path, 2, resume=True, model=now, ema=False).train()


def test_weights_of_which_none_fits_are_refused(tmp_path):
    file = tmp_path / 'foreign.pth'
    torch.save(dict(state_dict={'conv1.weight': torch.ones(3)}), file)
    with pytest.raises(ValueError, match='got 1 tensors .*conv1.weight.*none'):
        build(tmp_path, 1, load_from=str(file)).train()
    partly = dict(Line().state_dict(), other=torch.ones(3))
    torch.save(dict(state_dict=partly), file)
    build(tmp_path, 1, load_from=str(file)).train()


def test_nothing_to_resume(tmp_path):
    runner = build(tmp_path, 1, resume=True)
    warnings = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner.logger, 'warning', warnings.append)
        runner.train()
    assert f'Nothing to resume: {tmp_path} has no checkpoint. The run ' \
        'starts from the beginning.' in warnings


def test_settings_of_the_checkpoint_stay(tmp_path):
    build(tmp_path, 1, weight_decay=0.02).train()
    file = str(tmp_path / 'epoch_1.pth')
    warnings = []
    for decay in 0.02, 0.3:
        runner = build(
            tmp_path / str(decay),
            2,
            resume=True,
            load_from=file,
            weight_decay=decay)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(runner.logger, 'warning', warnings.append)
            runner.train()
        assert runner.optim_wrapper.param_groups[0]['weight_decay'] == 0.02
    text, = [text for text in warnings if 'keeps' in text]
    assert 'keeps weight_decay=0.02 of its checkpoint' in text
    assert 'ignores the 0.3 of the config' in text


def test_weights_alone_are_loaded(tmp_path):
    state_dict = Line().state_dict()
    torch.save(dict(state_dict=state_dict), tmp_path / 'weights.pth')
    runner = build(tmp_path, 1, load_from=str(tmp_path / 'weights.pth'))
    runner.call_hook('before_run')
    runner.load_or_resume()
    assert torch.equal(runner.model.slope.weight, state_dict['slope.weight'])


def test_to_plain(tmp_path, caplog):
    history = HistoryBuffer([0.1, 2.], [1, 3])
    weights = torch.arange(3.)
    value = dict(
        numbers=(np.float64(0.1), np.int32(2), True, None, 1 << 70),
        arrays=[np.eye(2), np.array(['a'])],
        kept=OrderedDict(weights=weights, text='a', raw=b'a'),
        several=deque([{1}, frozenset('a')]),
        by_number={np.int64(3): 'a'},
        lost=dict(colour=Colour.RED, function=len, kept=1),
        history=history)
    plain = to_plain(value, 'checkpoint')
    assert_equal(
        plain,
        dict(
            numbers=(0.1, 2, True, None, 1 << 70),
            arrays=[[[1., 0.], [0., 1.]], ['a']],
            kept=dict(weights=weights, text='a', raw=b'a'),
            several=[[1], ['a']],
            by_number={3: 'a'},
            lost=dict(kept=1),
            history=plain['history']))
    assert plain['history'].view(torch.float64).tolist() == [[.1, 2.], [1, 3]]
    assert isinstance(value['history'], HistoryBuffer)
    torch.save(plain, tmp_path / 'plain.pth')
    assert_equal(load(tmp_path / 'plain.pth'), plain)
    assert to_plain(np.longdouble(1), 'checkpoint') is OMITTED


def test_unknown_argument():
    with pytest.raises(TypeError, match="unexpected keyword argument 'foo'"):
        SafeCheckpointHook(interval=1, foo=1)
