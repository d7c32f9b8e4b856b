# Copyright (c) greenmim authors. All rights reserved.
"""The import rules of the package and the hygiene of the repository."""
import ast
import configparser
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Iterator, List, NamedTuple, Set

import pytest

from greenmim.requirements import FAMILIES

CHECKOUT = Path(__file__).resolve().parents[1]
PACKAGE = CHECKOUT / 'greenmim'
COPYRIGHT = '# Copyright (c) greenmim authors. All rights reserved.'

# A package imports those above it, and itself. Those on one line are
# strangers to each other.
LAYERS = [
    ['greenmim.ops'],
    ['greenmim.models.visible'],
    [
        'greenmim.models.backbones', 'greenmim.models.necks',
        'greenmim.models.target_generators', 'greenmim.models.masking'
    ],
    ['greenmim.models.heads'],
    ['greenmim.models.selfsup'],
    ['greenmim.weights', 'greenmim.datasets', 'greenmim.visualization'],
    ['greenmim.evaluation'],
    ['greenmim.engine'],
]


class Import(NamedTuple):
    file: Path
    line: int
    module: str
    at_top: bool

    def __str__(self) -> str:
        file = self.file.relative_to(CHECKOUT)
        return f'{file}:{self.line} imports {self.module}'


def imports_of(file: Path, root: Path = CHECKOUT) -> List[Import]:
    """Every module that a file imports, by its absolute name.

    ``from a import b`` counts as ``a.b``: where ``b`` is a class, it is still
    inside ``a``.
    """
    package = file.relative_to(root).parent.parts
    tree = ast.parse(file.read_text())
    lazy = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        for inner in ast.walk(node)
    }
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = list(package[:len(package) - node.level +
                                1]) if node.level else []
            base += [node.module] if node.module else []
            names = ['.'.join(base + [alias.name]) for alias in node.names]
        else:
            continue
        found += [
            Import(file, node.lineno, name,
                   id(node) not in lazy) for name in names
        ]
    return found


def imports_in(folder: Path) -> Iterator[Import]:
    for file in sorted(folder.rglob('*.py')):
        yield from imports_of(file)


def is_inside(module: str, package: str) -> bool:
    return module == package or module.startswith(package + '.')


def layer_breaches(root: Path = CHECKOUT) -> List[str]:
    """Imports from a layer's own line or from below it."""
    breaches = []
    for rank, line in enumerate(LAYERS):
        closed = [package for layer in LAYERS[rank:] for package in layer]
        for own in line:
            for file in sorted((root / own.replace('.', '/')).rglob('*.py')):
                breaches += [
                    f'{own} imports {found.module}'
                    for found in imports_of(file, root) if any(
                        is_inside(found.module, package) for package in closed
                        if package != own)
                ]
    return breaches


def test_layers_import_only_those_above():
    assert layer_breaches() == []


@pytest.mark.parametrize('statement', [
    'from greenmim.models.selfsup import GreenMIM',
    'from greenmim.models import heads',
    'from ..heads import GreenMIMHead',
    'from .. import heads',
    'def f():\n    import greenmim.models.heads.greenmim_head',
])
def test_layer_check_sees_every_form_of_import(tmp_path, statement):
    folder = tmp_path / 'greenmim' / 'models' / 'necks'
    folder.mkdir(parents=True)
    (folder / 'neck.py').write_text('import torch\n'
                                    'from greenmim.ops import plan\n'
                                    'from ..visible import block\n')
    assert layer_breaches(tmp_path) == []
    (folder / 'neck.py').write_text(statement)
    assert len(layer_breaches(tmp_path)) == 1


@pytest.mark.skipif(
    sys.version_info < (3, 10),
    reason='Python 3.9 does not list its own modules')
def test_ops_import_torch_and_numpy():
    allowed = {'torch', 'numpy', 'triton', *sys.stdlib_module_names}
    breaches = [
        str(found) for found in imports_in(PACKAGE / 'ops')
        if found.module.split('.')[0] not in allowed
        and not is_inside(found.module, 'greenmim.ops')
    ]
    assert breaches == []


def test_ops_import_where_openmmlab_is_missing():
    script = """
import sys

class Refuse:

    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in ('mmcv', 'mmengine', 'mmpretrain'):
            raise ImportError(f'no {name}')

sys.meta_path.insert(0, Refuse())
import greenmim.ops
assert greenmim.ops.VisibleLayout
try:
    import greenmim.models
except ImportError:
    sys.exit(0)
sys.exit('OpenMMLab was found')
"""
    subprocess.run([sys.executable, '-c', script], cwd=CHECKOUT, check=True)


def test_triton_is_imported_lazily():
    """A file of kernels needs it at the top; nobody imports that at the top.
    """
    kernels = {
        'greenmim.ops.' + found.file.stem
        for found in imports_in(PACKAGE / 'ops')
        if is_inside(found.module, 'triton') and found.at_top
    }
    breaches = [
        str(found) for found in imports_in(PACKAGE) if found.at_top and any(
            is_inside(found.module, kernel) for kernel in kernels)
    ]
    assert breaches == []


def test_backbones_do_not_import_each_other():
    package = 'greenmim.models.backbones'
    breaches = [
        str(found) for found in imports_in(PACKAGE / 'models' / 'backbones') if
        found.file.name != '__init__.py' and is_inside(found.module, package)
    ]
    assert breaches == []


def test_selfsup_names_no_backbone():
    """In code; a docstring may hold an example."""
    backbones = {
        node.name
        for file in (PACKAGE / 'models' / 'backbones').glob('*.py')
        for node in ast.parse(file.read_text()).body
        if isinstance(node, ast.ClassDef)
    }
    assert 'GreenMIMSwinTransformer' in backbones
    breaches = []
    for file in (PACKAGE / 'models' / 'selfsup').rglob('*.py'):
        tree = ast.parse(file.read_text())
        docstrings = {
            id(node.value)
            for node in ast.walk(tree) if isinstance(node, ast.Expr)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and id(node) not in docstrings:
                words = str(node.value)
            else:
                words = getattr(node, 'id', '') or getattr(node, 'attr', '')
            breaches += [
                f'{file.name} names {name}' for name in backbones
                if name in words
            ]
    assert breaches == []


@pytest.mark.skipif(
    sys.version_info < (3, 10),
    reason='Python 3.9 does not list its own modules')
def test_requirements_are_what_is_imported():
    config = configparser.ConfigParser()
    config.read(CHECKOUT / 'setup.cfg')
    required = {
        line.split('>')[0]
        for line in config['options']['install_requires'].split()
    }
    modules = {'pillow': 'PIL', 'scikit-image': 'skimage'}
    required = {modules.get(name, name) for name in required}
    # These are optional, and imported where they are used.
    optional = {
        'codecarbon', 'imagecodecs', 'lmdb', 'onnx', 'onnxruntime',
        'pillow_heif', 'pyarrow', 'pydicom', 'rasterio', 'sklearn', 'triton'
    }
    imported = {found.module.split('.')[0]
                for found in imports_in(PACKAGE)} - set(
                    sys.stdlib_module_names) - {'greenmim', *optional}
    # Of either family, which setup.cfg cannot express; they bring OpenCV.
    libraries = set(FAMILIES['openmmlab'])
    # mmpretrain imports torchvision without requiring it.
    assert required - {'torchvision'
                       } == imported - {'torchvision', 'cv2', *libraries}
    assert libraries <= imported


def package_of(file: Path) -> str:
    return '.'.join(file.relative_to(CHECKOUT).with_suffix('').parts)


def test_no_import_cycle():
    """Between files, by what each imports when it is imported."""
    modules = {
        package_of(file).replace('.__init__', ''): file
        for file in PACKAGE.rglob('*.py')
    }

    def targets(file: Path) -> Set[str]:
        """The files whose names are imported, not the folders they are in."""
        found = set()
        for name in (i.module for i in imports_of(file) if i.at_top):
            while name not in modules and '.' in name:
                name = name.rpartition('.')[0]
            found.add(name)
        return found & set(modules)

    graph = {name: targets(file) for name, file in modules.items()}
    while True:
        leaves = {name for name, needs in graph.items() if not needs}
        if not leaves:
            break
        graph = {
            name: needs - leaves
            for name, needs in graph.items() if name not in leaves
        }
    assert graph == {}


def tracked_files() -> List[Path]:
    answer = subprocess.run(['git', 'ls-files', '-z'],
                            cwd=CHECKOUT,
                            capture_output=True,
                            text=True)
    if answer.returncode:
        pytest.skip('not a git checkout')
    files = [CHECKOUT / name for name in answer.stdout.split('\0') if name]
    return [file for file in files if file.is_file()]


def test_no_hook_is_set_by_its_number():
    """It has a name in `default_hooks`; only CHANGELOG tells the old way."""
    breaches = []
    for file in tracked_files():
        if file.suffix in ('.md', '.py', '.sh',
                           '.yml') and (file.name != 'CHANGELOG.md'):
            breaches += [
                f'{file.relative_to(CHECKOUT)}: {found}'
                for found in re.findall(r'custom_hooks(?:\.|\[)-?\d\S*',
                                        file.read_text('utf-8'))
            ]
    assert breaches == []


def test_no_large_file_is_tracked():
    large = [
        file.relative_to(CHECKOUT) for file in tracked_files()
        if file.stat().st_size > 2 * 2**20
    ]
    assert large == []


def test_python_files_start_with_the_copyright_line():
    lacking = [
        file.relative_to(CHECKOUT) for file in tracked_files()
        if file.suffix == '.py' and not file.read_text().startswith(COPYRIGHT +
                                                                    '\n')
    ]
    assert lacking == []


def test_config_names_are_unique():
    """``mim train greenmim NAME`` searches configs, tools and package."""
    configs = list((CHECKOUT / 'configs').rglob('*.py'))
    recipes = {
        file.name
        for file in configs if '_base_' not in file.relative_to(CHECKOUT).parts
    }
    assert recipes
    names = Counter(
        file.name for folder in ('configs', 'tools', 'greenmim')
        for file in (CHECKOUT / folder).rglob('*.py')
        if '.mim' not in file.parts)
    assert [name for name in sorted(recipes) if names[name] > 1] == []
