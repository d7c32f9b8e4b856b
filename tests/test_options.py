# Copyright (c) greenmim authors. All rights reserved.
"""Values of --cfg-options and --set arrive as they were typed."""
import argparse
import shlex

import pytest
from mmengine.config import Config, ConfigDict

from greenmim.engine.launch import set_options
from greenmim.options import AsTyped, ReadOptions, read_options, read_value

NAMES = [
    'my photos', 'a, b', "it's", 'say "hi"', 'photos (1)', '[new], old',
    'Bäume 中', '2012', '1e3', 'a,b', 'key=value', 'true story'
]


def config():
    return Config(
        dict(
            load_from=None,
            default_hooks=dict(),
            name='x',
            train_dataloader=dict(dataset=dict(data_root='data/images')),
            val_dataloader=dict(dataset=dict(ann_file='')),
            model=dict(
                ratio=0.75,
                backbone=dict(
                    out_indices=[3], arch='tiny',
                    init_cfg=dict(checkpoint='')))))


def parse(*pairs):
    parser = argparse.ArgumentParser()
    parser.add_argument('--cfg-options', nargs='+', action=ReadOptions)
    return parser.parse_args(['--cfg-options', *pairs]).cfg_options


@pytest.mark.parametrize('key', [
    'load_from', 'train_dataloader.dataset.data_root',
    'val_dataloader.dataset.ann_file', 'model.backbone.init_cfg.checkpoint'
])
@pytest.mark.parametrize('name', NAMES)
def test_paths_are_taken_as_typed(key, name):
    cfg = config()
    set_options(cfg, parse(f'{key}={name}'))
    for part in key.split('.'):
        cfg = cfg[part]
    assert cfg == name


@pytest.mark.parametrize('text, value', [
    ('1', 1), ('1e-3', 1e-3), ('True', True), ('false', False),
    ('None', None), ('tiny', 'tiny'), ('a b', 'a b'), ("'1'", '1'),
    ('a,b', ['a', 'b']), ('1,2', [1, 2]), ('[a,b]', ['a', 'b']),
    ('[117.]', [117.]), ('(a,1)', ('a', 1)), ('[(a,b),(c,1e-3)]',
                                              [('a', 'b'), ('c', 1e-3)]),
    ('[a, b]', ['a', 'b']), ('["a b", \'c,d\']', ['a b', 'c,d']),
    ('[]', []), ('dict(a=1)', 'dict(a=1)'), ('a=b', 'a=b')
])  # yapf: disable
def test_other_values_are_read_as_mmengine_reads_them(text, value):
    read = read_value(text, 'model.new', None)
    assert read == value and type(read) is type(value)


def test_text_stays_text_where_the_config_holds_text():
    read = read_options(
        parse('name=a, b', 'model.backbone.arch=a,b'), config())
    assert read == {'name': 'a, b', 'model.backbone.arch': 'a,b'}
    assert read_value('512', 'name', 'dynamic') == 512


@pytest.mark.parametrize('text', ['a b, c', "it's, that", 'a "b", c'])
def test_what_may_be_text_or_a_list_is_refused_with_both_ways_out(text):
    with pytest.raises(ValueError, match='may be both') as caught:
        read_value(text, 'model.new', None)
    ways = str(caught.value).split('Write ')[1].split(' for the text, or ')
    values = [
        read_value(shlex.split(way)[0].split('=', 1)[1], 'model.new', None)
        for way in ways
    ]
    assert values[0] == text and isinstance(values[1], list)


def test_python_values_are_left_alone():
    options = dict(a='1,2', b=ConfigDict(c=1))
    assert read_options(options, config()) == options
    assert read_options(dict(a=AsTyped('1')), config()) == dict(a=1)
