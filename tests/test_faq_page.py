# Copyright (c) greenmim authors. All rights reserved.
"""docs/faq.md: what its answers say is what the code does.

Its options are checked with those of docs/openmmlab.md, commands and links
with those of all pages.
"""
import re

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import PARAM_SCHEDULERS
from mmpretrain.registry import MODELS, TRANSFORMS

import greenmim.models  # noqa: F401
from greenmim.doctor import TORCH
from greenmim.ops import unit_grid
from tests.conftest import CHECKOUT
from tests.documents import Page

PAGE = Page('docs/faq.md')
ANSWERS = dict(
    re.findall(r'^\*\*(.+?)\*\* ?(.+?)(?=\n\n)', PAGE.text + '\n\n',
               re.M | re.S))
CONFIGS = CHECKOUT / 'configs'


def answer(question):
    found, = [ANSWERS[key] for key in ANSWERS if question in key]
    return ' '.join(found.split())


def test_every_question_has_an_answer_that_leads_on():
    """A command, an option, a file or a link."""
    assert len(ANSWERS) == PAGE.text.count('\n**') > 30
    for question, text in ANSWERS.items():
        plain = question in ('May I use the weights commercially?',
                             'How do I repeat a run?')
        assert re.search(r'`|\]\(', text) or plain, question


def test_the_line_for_torchvision_is_that_of_the_doctor():
    assert f'`{TORCH}`' in answer('torchvision::nms')


def test_a_class_that_is_not_found_is_told_like_this():
    with pytest.raises(KeyError) as error:
        MODELS.build(dict(type='greenmim.NoSuchClass'))
    said = re.search(r'greenmim\.NoSuchClass (is not in the) \S+ (registry)',
                     str(error.value)).groups()
    question, = [key for key in ANSWERS if 'not in the' in key]
    assert all(words in question for words in said)


def test_an_image_that_is_not_square():
    size = re.search(r'`scale=(\(\d+, \d+\))`', answer('not square'))[1]
    crop = TRANSFORMS.build(dict(type='RandomResizedCrop', scale=eval(size)))
    height_width = tuple(reversed(crop.scale))
    assert unit_grid(height_width, 32) == (6, 10)
    with pytest.raises(ValueError, match=r'crop to \(224, 256\)'):
        unit_grid((224, 250), 32)


def test_cost_of_a_mask_for_every_image():
    """The percentage is that of the measured table."""
    low, high = map(
        int,
        re.search(r'costs (\d) to (\d) % more', answer('One mask')).groups())
    rows = re.findall(
        r'^\| swin-base-w7, 224 px, 75% masked, batch 8, CPU fp32 \| '
        r'greenmim, mask per (batch|image) \| ([\d.]+) ',
        Page('docs/benchmarks.md').text, re.M)
    seconds = {scope: float(value) for scope, value in rows}
    more = 100 * (seconds['image'] / seconds['batch'] - 1)
    assert low <= more <= high


def test_a_warm_up_that_is_too_long():
    """An error without the hook that the answer names."""
    question, = [key for key in ANSWERS if 'larger than begin' in key]
    cfg = Config.fromfile(CONFIGS / 'greenmim_swin-tiny-w7_8xb256-amp-coslr-'
                          '200e_in1k.py')  # yapf: disable
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 0.1)

    def build_schedules():
        for schedule in cfg.param_scheduler:
            schedule = dict(schedule, optimizer=optimizer, epoch_length=9)
            if schedule['type'] == 'CosineAnnealingLR':
                schedule['end'] = 2  # as the runner sets it
            PARAM_SCHEDULERS.build(schedule)

    with pytest.raises(ValueError, match=question.strip('`.')):
        build_schedules()
    hook = cfg.default_hooks.settings.type
    assert f'hook `settings` (`{hook}`)' in answer(question)
