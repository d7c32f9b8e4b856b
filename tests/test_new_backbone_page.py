# Copyright (c) greenmim authors. All rights reserved.
"""docs/new_backbone.md: its excerpts are true, its templates pass the tests.

The common tests are called as functions, for a family that is on the page
alone.
"""
import re
import shlex
import textwrap

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope

from greenmim.registry import MODELS
from tests.conftest import CHECKOUT
from tests.documents import Page
from tests.test_models.test_backbones import test_exactness as exactness

PAGE = Page('docs/new_backbone.md')
TEXT = PAGE.text
PYTHON = PAGE.take('python')
COMMAND, = PAGE.take('bash')
EXCERPTS = [block for block in PYTHON if block.startswith('# greenmim/')]
TEMPLATES = [block for block in PYTHON if 'class ' in block]
CONFIGS = [block for block in PYTHON if '_base_' in block]


@pytest.fixture(scope='module')
def mynet():
    """The family of the templates."""
    scope = {}
    try:
        for block in TEMPLATES:
            exec(compile(block, str(PAGE.path), 'exec'), scope)
        yield scope['MYNET']
    finally:
        MODELS.module_dict.pop('GreenMIMMyNet', None)


def test_every_block_is_tested():
    assert len(EXCERPTS) == 7 and len(TEMPLATES) == 3 and len(CONFIGS) == 1
    assert len(PYTHON) == 11


@pytest.mark.parametrize('excerpt', EXCERPTS)
def test_excerpts_are_in_their_files(excerpt):
    path, block = excerpt.split('\n', 1)
    source = (CHECKOUT / path[2:]).read_text(encoding='utf-8')
    assert any('\n' + textwrap.indent(block, ' ' * spaces) in source
               for spaces in (0, 4, 8, 12))


def test_templates_equal_their_twin(mynet):
    for case in mynet.cases:
        for kind in ('none', 'one', 'all-but-one', 'shared', 'image'):
            exactness.test_equals_twin_in_float64(mynet, case, kind)
        exactness.test_equals_twin_in_float32(mynet, case)
        exactness.test_each_image_equals_itself_alone(mynet, case)
    exactness.test_every_stage_equals_the_twin(mynet)
    for mutation in mynet.mutations:
        exactness.test_the_comparison_sees_a_mutation(mynet, mutation)


def test_templates_equal_their_parent(mynet):
    for case in mynet.divided:
        exactness.test_nothing_masked_equals_the_parent(
            mynet, case, torch.float64, 1e-10)
    for case in mynet.dense:
        exactness.test_without_mask_equals_the_parent_bit_for_bit(
            mynet, case, True)


def test_templates_keep_the_other_promises(mynet):
    for kind in ('shared', 'image'):
        exactness.test_masked_pixels_have_no_influence(mynet, kind,
                                                       torch.float64)
        for kwargs in mynet.waiting:
            exactness.test_nothing_waits_for_the_device(mynet, kwargs, kind)
        exactness.test_bfloat16_autocast_is_close_to_float32(mynet, kind)
    exactness.test_visible_pixels_do_have_influence(mynet)
    exactness.test_a_shared_mask_equals_the_same_mask_for_each_image(mynet)
    exactness.test_no_call_leaves_a_trace(mynet)
    exactness.test_all_forms_of_a_mask_agree(mynet)
    exactness.test_bad_masks_and_sizes_are_refused(mynet)
    exactness.test_the_whole_model_does_not_wait(mynet, 'batch')


def test_command(mynet):
    words = shlex.split(COMMAND)
    assert words[:4] == ['python', '-m', 'pytest', '-q']
    assert (CHECKOUT / words[4] / 'test_exactness.py').is_file()
    assert words[5:] == ['-k', mynet.name]


def test_config_builds(workspace):
    (workspace / 'mine.py').write_text(CONFIGS[0])
    cfg = Config.fromfile('mine.py')
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(cfg.model.backbone)
        neck = MODELS.build(cfg.model.neck)
    assert model.embed_dims == neck.decoder_embed.in_features
    unit = model.unit_size
    assert unit == cfg.model.head.unit_size
    assert neck.decoder_pred.out_features == unit**2 * model.image_channels


def test_names_of_the_table_exist():
    table = TEXT.split('## Which layer becomes what')[1].split('The files')[0]
    names = re.findall(r'`(\w+)(?:\.from_layout)?`', table)
    assert len(names) > 12
    known = ''.join(
        path.read_text('utf-8') for folder in ('ops', 'models/visible')
        for path in (CHECKOUT / 'greenmim' / folder).glob('*.py'))
    for name in names:
        assert re.search(rf'^ *(def|class) {name}\b', known, re.M), name
    for file in set(re.findall(r'`(\w+\.py)`', table)):
        assert (CHECKOUT / 'greenmim' / 'models' / 'backbones' / file).exists()
