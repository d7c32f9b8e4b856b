# Copyright (c) greenmim authors. All rights reserved.
"""The page "Use your backbone", from top to bottom."""
import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmpretrain.models import SwinTransformer
from mmpretrain.registry import MODELS

from greenmim.models import GreenMIMSwinTransformer
from greenmim.weights.swin import Swin
from tests.conftest import CHECKOUT
from tests.documents import Page, lines_of, run_line, short_run
from tests.micro import scalars_of
from tests.test_detection_and_segmentation import CASES, COMPLAINT

PAGE = Page('docs/use_your_backbone.md')
TEXT = PAGE.text
# The test goes through all blocks, and fails for what it does not know.
for language in 'bash', 'python':
    PAGE.take(language)
CONFIGS = CHECKOUT / 'configs' / 'benchmarks'
SWIN_TINY = 'swin-tiny-w7_8xb96-amp-coslr-100e_in1k.py'
LOADING = [
    f'{part}_dataloader.{option}' for part in ('val', 'test')
    for option in ('num_workers=0', 'persistent_workers=False')
]
# What makes a command as short as a test has to be, by a part of it.
SHORTER = {
    'tools/train.py configs/quickstart':
    short_run(4),
    'watch.py': [
        *short_run(4), 'default_hooks.knn.interval=2',
        'default_hooks.knn.num_workers=0'
    ],
    'folder-128px.py': [
        'train_cfg.max_epochs=2', *short_run(2, True)[2:4],
        *short_run(2, True)[-2:], *LOADING
    ],
    'greenmim_swin-tiny': [
        *short_run(2, True), 'train_dataloader.batch_size=2',
        'default_hooks.checkpoint.save_optimizer=False'
    ],
    SWIN_TINY: [
        *short_run(2, True), 'train_cfg.val_interval=9',
        'train_dataloader.dataset.indices=8', *LOADING
    ],
}
# Where such a run ends, and where the documented one would.
ENDS = {'iter_4.pth': 'iter_600.pth', 'epoch_2.pth': 'epoch_30.pth'}


def of_the_other_environment(line):
    """The commands that need MMDetection or MMSegmentation."""
    return line.split()[0] in ('mim', 'bash')


@pytest.fixture
def run(workspace, labelled, run_tool, monkeypatch):
    """Run a command, shortened, where there are images and weights.

    The weights are those of a Swin-T with one block a stage.
    """
    Path('data').mkdir()
    Path('data/labelled').symlink_to(labelled)
    Path('data/images').symlink_to(labelled / 'train' / 'class0')
    Path('photo.jpg').symlink_to(labelled / 'train' / 'class0' / '0.png')
    shallow = dict(SwinTransformer.arch_zoo['tiny'], depths=[1, 1, 1, 1])
    monkeypatch.setitem(SwinTransformer.arch_zoo, 'tiny', shallow)
    recipe = Config.fromfile(CONFIGS / 'classification' / SWIN_TINY)
    backbone = MODELS.build(dict(recipe.model.backbone, init_cfg=None))
    state = backbone.state_dict()
    Path('work_dirs/pre-trained').mkdir(parents=True)
    torch.save({
        f'backbone.{k}': v
        for k, v in state.items()
    }, 'work_dirs/pre-trained/swin-tiny.pth')
    theirs, _ = Swin().to_layout(state, 'swin')
    theirs['head.weight'] = torch.zeros(1000, 768)
    theirs['head.bias'] = torch.zeros(1000)
    Path('checkpoints').mkdir()
    torch.save(
        dict(model=theirs), 'checkpoints/swin_tiny_patch4_window7_224.pth')

    def start(line):
        options = []
        if re.search(r'tools/(train|test)\.py', line):
            options, = (o for part, o in SHORTER.items() if part in line)
        if 'knn.py' in line:
            line += ' --num-workers 0 --device cpu'
        run_line(run_tool, line, *options)
        for short, whole in ENDS.items():
            for file in Path('work_dirs').rglob(short):
                file.rename(file.with_name(whole))

    yield start
    for name in 'work_dirs', 'checkpoints':
        shutil.rmtree(workspace / name)  # hundreds of MB


def build(cfg):
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(cfg)
    model.init_weights()
    model.eval()  # MMPretrain's Swin returns nothing
    return model


@torch.no_grad()
def test_from_top_to_bottom(run, monkeypatch, capsys):
    complaints = []
    monkeypatch.setattr('mmengine.runner.checkpoint.print_log',
                        lambda message, *_, **__: complaints.append(message))
    assert PAGE.write_configs() == ['watch.py']
    scopes, pasted = [], []
    with torch.enable_grad():
        for language, block in PAGE.blocks():
            if language == 'bash':
                for line in lines_of(block):
                    if not of_the_other_environment(line):
                        run(line)
            elif '_base_' not in block:
                assert language == 'python'
                pasted.append(block)
                scopes.append({})
                exec(block, scopes[-1])
    # Only ImageNet's file has no decoder, and a classifier.
    named = re.findall(
        r'(?:backbone|neck|head)\.[\w.]+',
        ''.join(text for text in complaints if COMPLAINT.search(text)))
    assert {name.split('.')[0] for name in named} == {'neck', 'head'}

    # Nearest neighbours, after and during the training.
    accuracy = json.loads(Path('work_dirs/quickstart/knn.json').read_text())
    assert accuracy['classified'] == 12 and 'top5' in accuracy
    figures = scalars_of(Path('work_dirs/watched'))
    assert [f['step'] for f in figures if 'knn/top1' in f] == [0, 2, 4]

    # Every export holds the same backbone.
    images = torch.randn(2, 3, 128, 128)
    detector = build(scopes[0]['backbone'])
    timm_model, plain = scopes[1]['model'], scopes[2]['backbone']
    timm_model.eval()
    plain.eval()  # MMPretrain's Swin returns nothing
    trained = torch.load(
        'work_dirs/quickstart/iter_600.pth', weights_only=True)['state_dict']
    for name, tensor in plain.state_dict().items():
        assert torch.equal(tensor, trained[f'backbone.{name}']), name
    features, = plain(images)
    assert features.std() > 0.1
    theirs = timm_model.forward_features(images).permute(0, 3, 1, 2)
    torch.testing.assert_close(theirs, features, rtol=0, atol=1e-5)
    in_onnx, = map(torch.from_numpy, scopes[3]['maps'])
    ours, = plain(torch.from_numpy(scopes[3]['x']))
    torch.testing.assert_close(in_onnx, ours, rtol=0, atol=1e-4)
    # With `pad_small_map` the last map is shifted.
    assert len(detector(images)) == 4
    for module in plain.modules():
        if hasattr(module, 'pad_small_map'):
            module.pad_small_map = True
    assert torch.equal(detector(images)[-1], plain(images)[-1])

    # From ImageNet, in the first steps of the warm-up
    began = torch.load('checkpoints/swin-tiny.pth')['state_dict']
    (file, ) = Path('work_dirs/from-imagenet').glob('epoch_*.pth')
    ended = torch.load(file)['state_dict']
    for name, tensor in began.items():
        if name.startswith('backbone.') and tensor.is_floating_point():
            assert (ended[name] - tensor).abs().max() < 1e-3, name
    name = 'backbone.stages.3.blocks.0.ffn.layers.1.weight'
    assert ended[name].std() > 0.01
    assert not torch.equal(ended[name], began[name])

    for name in 'classifier', 'swin-tiny':
        assert list(Path('work_dirs', name).glob('epoch_*.pth'))
    printed = capsys.readouterr().out
    for block in pasted:
        # Printed paths are absolute, and in lines of their own if long.
        here = block.replace("'work_dirs/", f"'{Path.cwd()}/work_dirs/")
        assert ''.join(here.split()) in ''.join(printed.split())
    assert 'accuracy/top1' in printed and 'accuracy/top5' in printed
    for library in 'coco', 'ade':
        assert Path('data', library).is_dir()


def test_error_of_scipy(tmp_path):
    """MMPretrain's Swin resizes no table where SciPy has no interp2d."""
    said, = re.findall(r'^\| `` (.*SciPy.*?) `` \|', TEXT, re.M)
    arch = dict(embed_dims=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 1, 1])
    small, large = (
        SwinTransformer(arch, window_size=window) for window in (4, 7))
    with pytest.raises(NotImplementedError, match=re.escape(said)):
        large.load_state_dict(small.state_dict())
    larger = GreenMIMSwinTransformer(arch, window_size=7)
    larger.load_state_dict(small.state_dict())


def test_the_other_commands_are_run_where_their_libraries_are():
    """By test_detection_and_segmentation, in the other environment."""
    documented = [
        shlex.split(line) for line in PAGE.commands()
        if of_the_other_environment(line)
    ]
    tested = []
    for case in CASES:
        tested += [
            case.train,
            f'{case.tools}/mim_dist_train.sh {case.config} {case.backbone} 0',
            f'{case.tools}/mim_dist_test.sh {case.config} '
            f'{{}}{case.checkpoints[0]} 0'
        ]
    assert len(documented) == len(tested) == 6
    for words, line in zip(documented, tested):
        work_dir = words.index('--work-dir')
        assert len(words) == work_dir + 2
        folder = words[-1] + '/'  # of the checkpoint
        assert words[:work_dir] == line.format(folder).split()


@pytest.mark.parametrize('folder',
                         ['classification', 'mmdetection', 'mmsegmentation'])
def test_every_recipe_is_named(folder):
    named = set(re.findall(r'`([\w-]+_[\w-]+\.py)`', TEXT))
    recipes = {
        path.name
        for path in (CONFIGS / folder).glob('*.py')
        if '-micro-' not in path.name
    }
    assert recipes and recipes <= named
    known = {path.name for path in CHECKOUT.rglob('configs/**/*.py')}
    assert named <= known | {'export_backbone.py', 'compare_with_scratch.py'}
