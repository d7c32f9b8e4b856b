# Copyright (c) greenmim authors. All rights reserved.
"""The model cards, which `mim search greenmim` prints, match the configs."""
import json
from functools import lru_cache
from pathlib import Path

import pytest
from mmengine.analysis import get_model_complexity_info
from mmengine.config import Config
from modelindex.load_model_index import load

from greenmim.registry import MODELS

ROOT = Path(__file__).parents[1]
INDEX = load(str(ROOT / 'metafile.yml'))


@pytest.fixture(params=INDEX.models, ids=lambda card: card.name)
def card(request):
    return request.param


@pytest.fixture
def config(card):
    return Config.fromfile(ROOT / card.config)


@lru_cache(maxsize=None)
def flops_of_dense_backbone(settings):
    """FLOPs of the backbone with this config, in JSON."""
    settings = json.loads(settings)
    backbone = MODELS.build(settings)
    backbone.eval()
    size = settings.get('img_size', 224)
    return get_model_complexity_info(
        backbone, (3, size, size), show_table=False, show_arch=False)['flops']


def test_parses_without_complaint():
    assert INDEX.check(silent=True) == []


def test_a_collection_for_every_family():
    """Which `mim search greenmim --model` finds, and which a card shows."""
    families = [group.name for group in INDEX.collections]
    assert {card.in_collection for card in INDEX.models} == set(families)
    for group in INDEX.collections:
        assert group.metadata.data['Architecture'] == group.name
    # The longest name that fits, as in swin-v2 for swin.
    for card in INDEX.models:
        fitting = [
            name for name in families
            if card.name.startswith(f'greenmim_{name.lower()}')
        ]
        assert card.in_collection == max(fitting, key=len)


def test_every_recipe_has_a_card():
    recipes = sorted(path.stem for path in (ROOT / 'configs').glob('*.py'))
    assert sorted(card.name for card in INDEX.models) == recipes
    for card in INDEX.models:
        assert card.config == f'configs/{card.name}.py'


def test_card_claims_no_weights_and_no_results(card):
    """None were trained here; a quoted number says whose it is."""
    assert card.weights == 'none published/'  # no name of a file
    assert not card.results
    published = card.metadata.data.get('Published Result')
    assert published is None or published.endswith(
        'fine-tuned, by the authors, not measured here')


def test_card_matches_schedule(card, config):
    data = card.metadata.data
    gpus = int(data['Training Resources'].split(' GPUs')[0])
    assert data['Epochs'] == config.train_cfg.max_epochs
    assert data['Batch Size'] == gpus * config.train_dataloader.batch_size


def test_card_counts_parameters_and_flops(card, config):
    data = card.metadata.data
    model = MODELS.build(config.model)
    params = sum(param.numel() for param in model.parameters())
    assert data['Parameters'] == params
    settings = json.dumps(config.model.backbone.to_dict(), sort_keys=True)
    assert data['FLOPs'] == flops_of_dense_backbone(settings)
