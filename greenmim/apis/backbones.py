# Copyright (c) greenmim authors. All rights reserved.
"""Short names of backbones, and the recipe that pre-trains each of them."""
import copy
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import (Any, Callable, Dict, Iterable, List, NamedTuple, Optional,
                    Union)

import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch.overrides import TorchFunctionMode

from greenmim.benchmarking.records import recorded_speed
from greenmim.registry import MODELS
from .settings import image_size_of

PACKAGE = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Choice:
    """A recipe, and what another size of its backbone changes.

    Args:
        recipe: Name of the config.
        backbone: Settings of the backbone that differ.
        channels: Channels of its last stage, which the decoder reads; 0 for
            those of the recipe.
    """
    recipe: str
    backbone: Dict[str, Any] = field(default_factory=dict)
    channels: int = 0


def _sizes(family: str, recipe: str, channels: Dict[str, int],
           **settings: Any) -> Dict[str, Choice]:
    """The sizes of a family that share a recipe."""
    return {
        f'{family}-{arch}'.replace('deit-', ''):
        Choice(recipe, dict(settings, arch=arch), number)
        for arch, number in channels.items()
    }


def _micro(family: str, recipe: str) -> Dict[str, Choice]:
    """The small model of the quick start."""
    return {
        f'{family}-micro': Choice(f'{recipe}_1xb32-coslr-600i_photos-128px')
    }


_800 = '_8xb256-amp-coslr-800e_in1k'
_100 = '_8xb256-amp-coslr-100e_in1k'
BACKBONES: Dict[str, Choice] = {
    **_micro('swin', 'greenmim_swin-micro-w4'),
    **_sizes('swin', 'greenmim_swin-tiny-w7_8xb256-amp-coslr-200e_in1k',
             dict(tiny=768, small=768)),
    **_sizes('swin', f'greenmim_swin-base-w7{_800}', dict(base=1024)),
    'swin-large': Choice(f'greenmim_swin-large-w14{_800}'),
    **_micro('swin-v2', 'greenmim_swin-v2-micro-w4'),
    **_sizes('swin-v2', f'greenmim_swin-v2-base-w8{_800}',
             dict(tiny=768, small=768, base=1024, large=1536)),
    **_micro('convnext', 'greenmim_convnext-micro'),
    **_sizes('convnext', f'greenmim_convnext-base{_800}',
             dict(atto=320, femto=384, pico=512, nano=640, tiny=768,
                  small=768, base=1024, large=1536, xlarge=2048)),
    **_micro('pvt-v2', 'greenmim_pvt-v2-micro'),
    **_sizes('pvt-v2', f'greenmim_pvt-v2-b2{_800}',
             dict(b0=256, b1=512, b2=512, b3=512, b4=512, b5=512)),
    **_micro('twins-svt', 'greenmim_twins-svt-micro'),
    **_sizes('twins-svt', f'greenmim_twins-svt-base{_100}',
             dict(small=512, base=768)),
    'twins-svt-large': Choice(f'greenmim_twins-svt-large{_100}'),
    **_micro('twins-pcpvt', 'greenmim_twins-pcpvt-micro'),
    **_sizes('twins-pcpvt', f'greenmim_twins-pcpvt-base{_100}',
             dict(small=512, base=512, large=512)),
    **_micro('cmt', 'greenmim_cmt-micro'),
    'cmt-small': Choice(
        f'greenmim_swin-base-w7{_800}',
        dict(_delete_=True, type='greenmim.GreenMIMCMT', arch='small',
             img_size=224), 512),
    **_micro('hivit', 'greenmim_hivit-micro'),
    **_sizes('hivit', f'greenmim_hivit-base{_800}',
             dict(tiny=384, small=384, base=512, large=768)),
    **_micro('vit', 'greenmim_vit-micro-p16'),
    **_sizes('vit', f'greenmim_vit-base-p16{_800}',
             {'deit-tiny': 192, 'deit-small': 384, 'base': 768,
              'large': 1024, 'huge': 1280}),
}  # yapf: disable


def folder_of(name: str) -> Path:
    """The ``configs`` or ``tools`` of a checkout or an installed wheel."""
    checkout = PACKAGE.parent / name
    if (PACKAGE.parent / 'setup.cfg').is_file() and checkout.is_dir():
        return checkout
    return PACKAGE / '.mim' / name


def did_you_mean(name: str, known: Iterable[str]) -> str:
    close = get_close_matches(name, list(known), 1)
    return f'; did you mean {close[0]!r}?' if close else ''


def find_recipe(recipe: Union[str, Path]) -> Path:
    """The file of a recipe.

    Args:
        recipe (str | Path): A config file, or the name of one of this
            project's, in any of its folders.

    Raises:
        FileNotFoundError: If there is no such file.
    """
    path = Path(recipe).expanduser()
    if path.is_file() and path.suffix == '.py':
        return path
    files = {
        file.stem: file
        for file in sorted(folder_of('configs').rglob('*.py'))
        if '_base_' not in file.parts
    }
    name = path.name[:-3] if path.suffix == '.py' else path.name
    if name not in files:
        raise FileNotFoundError(
            f'expected a config file or the name of a recipe, got '
            f'{str(recipe)!r}{did_you_mean(name, files)}')
    return files[name]


def recipe_of(backbone: str) -> Config:
    """The config that pre-trains a backbone.

    Args:
        backbone (str): Its short name, such as ``'swin-tiny'``.

    Raises:
        ValueError: If there is no such name.
    """
    if backbone not in BACKBONES:
        raise ValueError(
            f'expected a backbone of `greenmim recipes`, got {backbone!r}'
            f'{did_you_mean(backbone, BACKBONES)}')
    choice = BACKBONES[backbone]
    cfg = copy.deepcopy(_read(find_recipe(choice.recipe)))
    if choice.backbone:
        # Merging takes `_delete_` out of it.
        settings: Dict[str, Any] = dict(backbone=dict(choice.backbone))
        if choice.channels:
            settings['neck'] = dict(in_channels=choice.channels)
        cfg.merge_from_dict(dict(model=settings))
    return cfg


@lru_cache(maxsize=None)
def _read(path: Path) -> Config:
    return Config.fromfile(path)


class EmptyOnMeta(TorchFunctionMode):
    """Makes a model without memory for its weights, and without setting them.

    Not all under ``torch.device('meta')``, since some backbones compute with
    numbers when they are made.
    """

    def __torch_function__(self,
                           func: Callable,
                           types: Any,
                           args: tuple = (),
                           kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.empty:
            kwargs['device'] = 'meta'
        return func(*args, **kwargs)


class Recipe(NamedTuple):
    """What :func:`recipes` says of a backbone."""
    backbone: str
    parameters: int  # of the backbone alone
    image_size: int  # pixels
    epochs: int  # of the recipe; 0 where it counts iterations
    config: str  # the name of the recipe
    images_per_second: Optional[float]  # forecast on this machine, if it was


def recipes() -> List[Recipe]:
    """The backbones that :func:`greenmim.pretrain` knows by name.

    Returns:
        list[Recipe]: Name, parameters, image size, epochs and recipe of each,
        and its speed where it was forecast on this machine.
    """
    init_default_scope('mmpretrain')
    found = []
    for name, choice in BACKBONES.items():
        cfg = recipe_of(name)
        with EmptyOnMeta():
            model = MODELS.build(cfg.model.backbone)
        found.append(
            Recipe(name, sum(p.numel() for p in model.parameters()),
                   image_size_of(cfg), cfg.train_cfg.get('max_epochs', 0),
                   choice.recipe, recorded_speed(cfg)))
    return found


def print_recipes(*,
                  recipe: Optional[str] = None,
                  out: Optional[str] = None) -> None:
    """List the backbones that can be pre-trained by name.

    The last column is the time to train on 1,000 images on this machine,
    where ``greenmim forecast`` or ``greenmim pretrain`` has measured it.

    Args:
        recipe (str, optional): Instead print the complete config of this
            recipe, or of a backbone. Defaults to None.
        out (str, optional): Write it to this file, which other configs
            inherit from by ``_base_``. Defaults to None.

    Raises:
        FileExistsError: If there is such a file.
        FileNotFoundError: If there is no such recipe.
        ValueError: If ``out`` comes without ``recipe``.
    """
    if recipe is not None:
        cfg = recipe_of(recipe) if recipe in BACKBONES else Config.fromfile(
            find_recipe(recipe))
        if out is None:
            print(cfg.pretty_text)
            return
        path = Path(out).expanduser()
        if path.exists():
            raise FileExistsError(f'expected a new file, but there is {path}')
        path.parent.mkdir(parents=True, exist_ok=True)
        cfg.dump(path)
        print(f'wrote {path}; inherit from it by _base_ = [{str(path)!r}]')
        return
    if out is not None:
        raise ValueError('expected --recipe with --out, the recipe to write')
    print(f'{"--backbone":<20}{"parameters":>11}{"pixels":>8}  '
          f'{"--recipe":<64}1,000 images here')
    for one in recipes():
        time = 'not measured'
        if one.images_per_second:
            time = f'{1000 / one.images_per_second:.3g} s'
        print(f'{one.backbone:<20}{one.parameters / 1e6:>9.1f} M'
              f'{one.image_size:>8}  {one.config:<64}{time}')
