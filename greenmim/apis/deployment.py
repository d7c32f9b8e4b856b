# Copyright (c) greenmim authors. All rights reserved.
"""Write a backbone for programs without PyTorch's Python: ONNX, TorchScript.

The dense forward is recorded for one image, with a batch of any size. What
was recorded is compared with PyTorch, and an image of a size for which it
does not hold is an error where the file is used.
"""
import json
import math
import warnings
from contextlib import ExitStack, contextmanager
from os import PathLike
from pathlib import Path
from typing import (Any, Callable, Dict, Iterator, List, Optional, Sequence,
                    Tuple, Union)

import torch
from mmpretrain.models.utils import ShiftWindowMSA
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from greenmim.models import (GreenMIMConvNeXt, GreenMIMPCPVT, GreenMIMPVTv2,
                             GreenMIMSVT, GreenMIMSwinTransformer,
                             GreenMIMSwinTransformerV2)
from greenmim.models.visible import image_channels
from greenmim.version import __version__
from greenmim.weights import model_card, read_source
from greenmim.weights.reading import sha256_of
from .loading import load, preprocess
from .recordable_windows import with_recordable_windows
from .runs import resolve

# Suffix of the file that each of them reads.
FORMATS = dict(onnx='.onnx', torchscript='.pt')
# The version of ONNX's operators, with LayerNormalization.
OPSET = 17
BATCHES = (1, 3, 4)
# Largest error relative to the largest entry of a map.
TOLERANCE = 1e-4
# Nothing in these is made for one size of the map.
ANY_SIZE = (GreenMIMConvNeXt, GreenMIMPVTv2, GreenMIMPCPVT, GreenMIMSVT,
            GreenMIMSwinTransformer, GreenMIMSwinTransformerV2)
UNIT = 32  # pixels; sides of images of any size are multiples of it

# The image of the printed Python, with what the file says about itself.
IMAGE = """image = Image.open('photo.jpg').convert('RGB')
image = image.resize(card['image_size'][::-1], Image.BICUBIC)
x = (np.asarray(image) - card['mean']) / card['std']
x = x.transpose(2, 0, 1)[None].astype('float32')"""
CODE = dict(
    onnx="""import json
import numpy as np
import onnxruntime
from PIL import Image

session = onnxruntime.InferenceSession({path!r})
card = json.loads(session.get_modelmeta().custom_metadata_map['greenmim'])
{image}
maps = session.run(None, dict(images=x))""",
    torchscript="""import json
import numpy as np
import torch
from PIL import Image

files = {{'greenmim.json': ''}}
model = torch.jit.load({path!r}, _extra_files=files)
card = json.loads(files['greenmim.json'])
{image}
maps = model(torch.from_numpy(x))""")

Size = Tuple[int, int]  # height, width
Run = Callable[[Tensor], Sequence[Any]]


class Dense(nn.Module):
    """The maps of a backbone, as a tuple.

    Args:
        backbone (nn.Module): The backbone, which returns maps.
        any_size (bool): Whether images of all multiples of :data:`UNIT` are
            accepted.
    """

    def __init__(self, backbone: nn.Module, any_size: bool) -> None:
        super().__init__()
        self.backbone = backbone
        self.any_size = any_size

    def forward(self, images: Tensor) -> Tuple[Tensor, ...]:
        """The maps, each (B, C, H', W'), of images (B, C, H, W)."""
        if self.any_size:
            # Fails in ONNX where a unit does not divide the sides.
            batch, channels, height, width = images.shape
            images = images.reshape(batch, channels, height // UNIT, UNIT,
                                    width // UNIT, UNIT)
            images = images.reshape(batch, channels, height, width)
        return tuple(self.backbone(images))


class Guarded(nn.Module):
    """What was recorded, after a check of the images.

    Args:
        recorded (torch.jit.ScriptModule): The recorded forward.
        channels (int): Channels of the images.
        size (tuple): Height and width of the images; (0, 0) for any size.
    """

    def __init__(self, recorded: nn.Module, channels: int, size: Size) -> None:
        super().__init__()
        self.recorded = recorded
        self.channels = channels
        self.height, self.width = size

    def forward(self, images: Tensor):  # type: ignore[no-untyped-def]
        """The maps, each (B, C, H', W'), of images (B, C, H, W)."""
        if images.dim() != 4 or images.size(1) != self.channels:
            raise ValueError(
                f'expected images (B, {self.channels}, H, W), got '
                f'{images.shape}')
        if self.height and (images.size(2) != self.height
                            or images.size(3) != self.width):
            raise ValueError(
                f'expected images of {self.height} x {self.width} pixels, got '
                f'{images.size(2)} x {images.size(3)}; export again with '
                '--image-size')
        return self.recorded(images)


class FixedSides(TorchFunctionMode):
    """Records all sides of a tensor as numbers, except the first, the batch.
    """

    def __torch_function__(self,
                           func: Any,
                           types: Any,
                           args: tuple = (),
                           kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func == torch.Tensor.shape.__get__:  # type: ignore[attr-defined]
            return tuple(side if i == 0 else int(side)
                         for i, side in enumerate(result))
        if func == torch.Tensor.size:
            if isinstance(result, tuple):
                return tuple(side if i == 0 else int(side)
                             for i, side in enumerate(result))
            axis = args[1] if len(args) > 1 else (kwargs or {})['dim']
            return result if axis % args[0].ndim == 0 else int(result)
        return result


@contextmanager
def recordable(any_size: bool) -> Iterator[None]:
    """Record backbones for a batch of any number, or any size of images."""
    with ExitStack() as stack:
        if not any_size:
            stack.enter_context(FixedSides())
        # Of numbers that are recorded, and of the successor of this exporter.
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter('ignore')
        stack.enter_context(torch.no_grad())
        yield


def export_program(
        run: Union[str, PathLike], to: str, out: Optional[str],
        image_size: Optional[Sequence[int]]) -> Tuple[Path, Path, str]:
    """Write the backbone of a run for ONNX or TorchScript.

    Args:
        run (str | PathLike): As of :func:`greenmim.load`.
        to (str): A key of :data:`FORMATS`.
        out (str, optional): The file to write.
        image_size (Sequence[int], optional): Side of the images in pixels, or
            height and width; None for that of the pre-training.

    Returns:
        tuple: The file, its report, and the Python that uses it.

    Raises:
        ImportError: If onnx or onnxruntime is not installed.
        ValueError: If the backbone does not accept such images, or the file
            does not compute what PyTorch does.
    """
    checkpoint = resolve(run)[1]
    path = Path(out) if out else checkpoint.with_name(
        f'{checkpoint.stem}_to-{to}{FORMATS[to]}')
    if path.suffix != FORMATS[to]:
        raise ValueError(f'expected --out with the suffix {FORMATS[to]}, '
                         f'which {to} reads, got {path}')
    transform = preprocess(run)
    sides = list(image_size or [transform.size])
    if len(sides) > 2 or min(sides) < 1:
        raise ValueError('expected --image-size with the side in pixels, or '
                         f'height and width, got {sides}')
    normalised = transform.config
    source = read_source(checkpoint)
    described = model_card(source, sides)
    card: Dict[str, Any] = dict(
        mean=list(normalised['mean']),
        std=list(normalised['std']),
        channel_order='RGB' if normalised.get('to_rgb') else 'BGR',
        value_range=[0, 255],
        image_size=[sides[0], sides[-1]],
        training=described['training'],
        licence=described['licence'],
        source=dict(file=checkpoint.name, sha256=source.sha256),
        greenmim=__version__)
    card = deploy(load(run), to, path, (sides[0], sides[-1]), card)
    report = path.with_name(path.name + '.json')
    report.write_text(
        json.dumps(dict(card, sha256=sha256_of(path)), indent=2) + '\n',
        encoding='utf-8')
    compared = ', '.join(f'{h} x {w}' for h, w in card['compared']['sizes'])
    print(f'equal to PyTorch within {card["largest_error"]:.1g} of the '
          f'largest entry, in batches of {BATCHES} at {compared} pixels')
    if not card['multiple_of']:
        print('other sizes are refused; export again with --image-size for '
              'another')
    print(f'wrote {path}; report: {report}')
    image = IMAGE
    if len(card['mean']) != 3:
        image = '# x: your images, float32 (B, C, H, W), normalised by card'
    elif card['channel_order'] == 'BGR':
        image = image.replace('np.asarray(image)',
                              'np.asarray(image)[..., ::-1]')
    return path, report, CODE[to].format(path=str(path.resolve()), image=image)


def deploy(backbone: nn.Module, to: str, path: Path, size: Size,
           card: Dict[str, Any]) -> Dict[str, Any]:
    """Write the dense forward of a backbone, and compare it with PyTorch.

    Args:
        backbone (nn.Module): A backbone that returns maps, in evaluation mode.
        to (str): A key of :data:`FORMATS`.
        path (Path): The file.
        size (tuple): Height and width of the images in pixels.
        card (dict): What the file says about itself, plain data. It is
            under ``greenmim`` in the metadata of ONNX, and the extra file
            ``greenmim.json`` of TorchScript.

    Returns:
        dict: The card, with the sizes that were compared and the errors.

    Raises:
        ImportError: If onnx or onnxruntime is not installed.
        ValueError: If the backbone does not accept such images, or the file
            does not compute what PyTorch does.
    """
    if to == 'onnx':
        try:
            import onnx  # noqa: F401
            import onnxruntime  # noqa: F401
        except ImportError as error:
            raise ImportError(
                f'--to onnx needs {error.name}, which writes or checks the '
                "file; install both by pip install 'greenmim[onnx]'"
            ) from error
    # Swin may have positions of its own, which are for one size.
    any_size = isinstance(backbone, ANY_SIZE) and not getattr(
        backbone, 'use_abs_pos_embed', False)
    channels = image_channels(backbone)
    least = _least(backbone)
    recorded_at = _awkward(backbone, least) if any_size else size
    try:
        with torch.no_grad():
            maps = backbone(torch.zeros(1, channels, *size))
    except (AssertionError, RuntimeError, ValueError) as error:
        raise ValueError(
            f'expected an image size that the backbone accepts, got '
            f'{size[0]} x {size[1]} pixels: {error}') from error
    card = dict(
        card,
        input=[
            'batch', channels, *(['height', 'width'] if any_size else size)
        ],
        outputs=[f'map{i}' for i in range(len(maps))],
        multiple_of=UNIT if any_size else None,
        at_least=least * UNIT if any_size else None)
    path.parent.mkdir(parents=True, exist_ok=True)
    dense = Dense(with_recordable_windows(backbone), any_size)
    images = torch.randn(2, channels, *recorded_at)
    with recordable(any_size):
        recorded = torch.jit.trace(dense, images, check_trace=False)
        if to == 'onnx':
            _write_onnx(recorded, images, path, any_size, card)
        else:
            guarded = torch.jit.script(
                Guarded(recorded, channels, (0, 0) if any_size else size))
            guarded.save(
                str(path), _extra_files={'greenmim.json': json.dumps(card)})
    sizes = [size]
    if any_size:
        # Windows divide the maps of one of them, and not those of the other;
        # the last map may be as large as a window, which is not shifted then.
        sizes += [recorded_at, (max(least, 4) * UNIT, 7 * UNIT)]
    try:
        largest = _largest_error(backbone, _open(to, path), channels, sizes)
    # Each runtime has errors of its own.
    except Exception as reason:
        path.unlink()
        raise ValueError(
            f'expected {path} to run as PyTorch does in batches of '
            f'{BATCHES}, so it was removed: {reason}') from reason
    if not largest <= TOLERANCE:
        path.unlink()
        raise ValueError(
            f'expected the maps of {path} to equal those of PyTorch within '
            f'{TOLERANCE:g} of the largest entry, got {largest:.2g}, so it '
            'was removed')
    return dict(
        card,
        largest_error=largest,
        compared=dict(
            batches=list(BATCHES), sizes=[list(size) for size in sizes]))


def _least(backbone: nn.Module) -> int:
    """The least side of an image in units: windows must fit into the maps."""
    windows = [
        stage.blocks[0].attn for stage in getattr(backbone, 'stages', [])
        if isinstance(getattr(stage, 'blocks', None), nn.ModuleList)
    ]
    sides = [
        math.ceil(window.window_size * 2**i / 8)
        for i, window in enumerate(windows)
        if isinstance(window, ShiftWindowMSA) and not window.pad_small_map
    ]
    return max(sides, default=1)


def _awkward(backbone: nn.Module, least: int) -> Size:
    """A size at which windows divide no map, so that all steps are recorded.

    Args:
        backbone (nn.Module): The backbone.
        least (int): The least side of an image in units.
    """
    windows = {
        getattr(module, 'window_size', 1)
        for module in backbone.modules()
    }
    sides = list(range(max(least, 2), 99))
    awkward = [
        n for n in sides
        if all(w == 1 or (n * 8) % w for w in windows if isinstance(w, int))
    ]
    first, second = [*awkward, *sides][:2]
    return first * UNIT, second * UNIT


def _write_onnx(recorded: Any, images: Tensor, path: Path, any_size: bool,
                card: Dict[str, Any]) -> None:
    import onnx
    free = {0: 'batch', **({2: 'height', 3: 'width'} if any_size else {})}
    maps = {
        name: {
            axis: f'{name}_{side}' if axis else side
            for axis, side in free.items()
        }
        for name in card['outputs']
    }
    torch.onnx.export(
        recorded, (images, ),
        str(path),
        dynamo=False,
        opset_version=OPSET,
        input_names=['images'],
        output_names=card['outputs'],
        dynamic_axes={
            'images': free,
            **maps
        })
    model = onnx.load(str(path))
    onnx.helper.set_model_props(model, dict(greenmim=json.dumps(card)))
    onnx.save(model, str(path))


def _open(to: str, path: Path) -> Run:
    if to == 'torchscript':
        return torch.jit.load(str(path))
    import onnxruntime
    session = onnxruntime.InferenceSession(
        str(path), providers=['CPUExecutionProvider'])
    return lambda images: session.run(None, dict(images=images.numpy()))


@torch.no_grad()
def _largest_error(backbone: nn.Module, run: Run, channels: int,
                   sizes: List[Size]) -> float:
    """The largest error relative to the largest entry of its map."""
    generator = torch.Generator().manual_seed(0)
    errors = [0.]
    for size in sizes:
        for batch in BATCHES:
            images = torch.randn(batch, channels, *size, generator=generator)
            expected, found = backbone(images), run(images)
            for ours, theirs in zip(expected, map(torch.as_tensor, found)):
                if ours.shape != theirs.shape:
                    return float('inf')
                error = (ours - theirs).abs().max() / ours.abs().max()
                errors.append(error.item())
    return max(errors)
