# Copyright (c) greenmim authors. All rights reserved.
"""README.md: the documented lines are there, its tables and numbers true.

What its commands name is checked with those of all pages, in
``test_documents.py``.
"""
import re

import yaml

from tests.conftest import CHECKOUT
from tests.documents import Page

PAGE = Page('README.md')


def test_documented_launcher_lines_are_there():
    assert set(PAGE.commands()) >= {
        'mim train mmselfsup CONFIG --work-dir D',
        'mim train mmselfsup CONFIG --work-dir D --launcher pytorch --gpus 8',
        'mim train mmselfsup CONFIG --work-dir D --launcher slurm --gpus 16 '
        '--gpus-per-node 8 --partition P',
        'python tools/train.py CONFIG --work-dir D',
        'bash tools/dist_train.sh CONFIG 8',
        'GPUS_PER_NODE=8 GPUS=16 bash tools/slurm_train.sh PARTITION JOB '
        'CONFIG --work-dir D',
        'bash tools/quickstart.sh [IMAGE_FOLDER]',
        'bash tools/run_tests.sh',
    }


def test_get_started_has_the_same_launchers():

    def launchers(page):
        script, = [text for _, text in page.blocks() if '8 GPUs of' in text]
        return script

    assert launchers(PAGE) == launchers(Page('docs/get_started.md'))


def test_five_minutes_are_enough():
    """Read at 230 words a minute; tables and code are looked up."""
    text = re.sub(r'^```.*?^```', '', PAGE.text, flags=re.M | re.S)
    text = re.sub(r'^\|.*$|<!-- benchmark.*?end -->', '', text, flags=re.M)
    assert len(text.split()) < 5 * 230


def test_first_number_is_that_of_the_benchmark():
    claim, benchmark = PAGE.text.split('<!-- benchmark:begin -->')
    row, = re.findall(r'^\| swin-base-w7, 224 px, 75% masked, batch 8, CPU '
                      r'fp32 \| (.*) \|$', benchmark, re.M)  # yapf: disable
    dense, ours, faster, _, memory = row.replace('*', '').split(' | ')
    claim = ' '.join(claim.split())
    assert f'takes **{ours} and {memory} the memory**' in claim
    assert f'{dense}: **{faster} faster**' in claim


def test_layout_exists():
    tree, = [text for name, text in PAGE.blocks() if name == 'text']
    parent = ''
    for line in tree.splitlines():
        name = line.split()[0]
        parent = parent if line.startswith(' ') else name
        path = parent + name if line.startswith(' ') else name
        assert (CHECKOUT / path).exists(), path


def test_model_zoo_is_the_metafile():
    cards = yaml.safe_load((CHECKOUT / 'metafile.yml').read_text('utf-8'))
    rows = dict(
        re.findall(r'^\| \[.+?\]\((configs/.+?)\) \| (.+) \|$', PAGE.text,
                   re.M))
    assert sorted(rows) == sorted(card['Config'] for card in cards['Models'])
    for card in cards['Models']:
        _, params, flops, published, ours = rows[card['Config']].split(' | ')
        data = card['Metadata']
        assert params == f'{data["Parameters"] / 1e6:.1f} M'
        assert flops == f'{data["FLOPs"] / 1e9:.1f} G'
        result = data.get('Published Result')
        assert published == (result.split()[0] if result else 'not reported')
        assert ours == 'not measured'
