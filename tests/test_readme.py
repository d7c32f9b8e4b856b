# Copyright (c) greenmim authors. All rights reserved.
"""README.md: the documented lines are there, its tables and numbers true.

What its commands name is checked with those of all pages, in
``test_documents.py``.
"""
import json
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


def test_the_openmmlab_page_has_the_same_launchers():

    def launchers(page):
        script, = [text for _, text in page.blocks() if '8 GPUs of' in text]
        return script

    assert launchers(PAGE) == launchers(Page('docs/openmmlab.md'))


def test_five_minutes_are_enough():
    """Read at 230 words a minute; tables and code are looked up."""
    text = re.sub(r'^```.*?^```', '', PAGE.text, flags=re.M | re.S)
    text = re.sub(r'^\|.*$|<!-- benchmark.*?end -->', '', text, flags=re.M)
    assert len(text.split()) < 5 * 230


def test_first_number_is_that_of_the_benchmark():
    file, = CHECKOUT.glob('benchmarks/step_swin-base-w7_224px_r0.75_*.json')
    rows = json.loads(file.read_text('utf-8'))['results'][0]['rows']
    ours, dense = rows[0], rows[-1]
    assert (ours['name'], dense['name']) == ('greenmim, mask per batch',
                                             'simmim')
    seconds = [f'{row["seconds"]:.2f} s' for row in (ours, dense)]
    memory = ours['peak_memory'] / dense['peak_memory']
    claim = ' '.join(PAGE.text.split('##')[0].split())
    assert f'takes **{seconds[0]}** instead of the {seconds[1]} of' in claim
    assert (f'**{ours["ratio"]:.1f}x faster, with {memory:.2f}x the memory**'
            in claim)


def test_layout_is_that_of_the_folders():
    """Every file that is named, and every folder that holds code."""
    tree, = [text for name, text in PAGE.blocks() if name == 'text']
    named, parent = set(), ''
    for line in tree.splitlines():
        name = line.split()[0]
        parent = parent if line.startswith(' ') else name
        named.add(parent + name if line.startswith(' ') else name)
    for path in named:
        assert (CHECKOUT / path).exists(), path
    for folder in ('configs', 'greenmim'):
        inside = {
            f'{folder}/{path.name}/'
            for path in (CHECKOUT / folder).iterdir()
            if path.is_dir() and any(path.glob('**/*.py'))
        }
        assert inside <= named, inside - named


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
