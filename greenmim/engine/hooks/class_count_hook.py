# Copyright (c) greenmim authors. All rights reserved.
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch.utils.data import Dataset

from greenmim._mmengine import model_of
from greenmim.registry import HOOKS


@HOOKS.register_module()
class ClassCountHook(Hook):
    """Refuse a classifier made for another number of classes.

    A GPU reports a label out of range as an assertion in a kernel, and one
    class too many is not noticed at all. MMPretrain's ``ClassNumCheckHook``
    also checks the loss, whose ``num_classes`` need not be given.
    """

    def before_train(self, runner: Runner) -> None:
        _check(runner, runner.train_dataloader.dataset)

    def before_val(self, runner: Runner) -> None:
        _check(runner, runner.val_dataloader.dataset)

    def before_test(self, runner: Runner) -> None:
        _check(runner, runner.test_dataloader.dataset)


def _check(runner: Runner, dataset: Dataset) -> None:
    classes = dataset.metainfo.get('classes')  # type: ignore[attr-defined]
    if classes is None:  # an annotation file does not name them
        return
    found = len(classes)
    model = model_of(runner)
    counts = {
        'model.head.num_classes': model.head.num_classes,
        'data_preprocessor.num_classes': model.data_preprocessor.num_classes
    }
    wrong = {
        name: count
        for name, count in counts.items() if count not in (None, found)
    }
    if wrong:
        stated = ' and '.join(f'{name}={n}' for name, n in wrong.items())
        fix = ' '.join(f'{name}={found}' for name in wrong)
        raise ValueError('expected a model, which --data FOLDER adapts, for '
                         f'the {found} classes of '
                         f'{dataset.data_prefix["img_path"]}, '  # type: ignore
                         f'got {stated}; add to --cfg-options: {fix}')
