# Copyright (c) greenmim authors. All rights reserved.
"""A folder with boxes in COCO's format, and a few of its images."""
import json
import random
from pathlib import Path
from typing import Any, Dict, NamedTuple, Optional, Tuple

TRAIN, TEST = ('train', ), ('test', 'val')


class CocoSplit(NamedTuple):
    """Images and boxes to train or to test on."""
    annotations: Path  # the JSON file
    images: Path  # the folder

    def read(self) -> Dict[str, Any]:
        """The content of the file."""
        return json.loads(self.annotations.read_text('utf-8'))

    def classes(self) -> Tuple[str, ...]:
        """The names of the classes, in the order of the file."""
        return tuple(one['name'] for one in self.read()['categories'])


def find_split(folder: Path, names: Tuple[str, ...]) -> CocoSplit:
    """The first of some splits that a folder has.

    A split ``test`` is ``test.json`` with the images in ``test``, or, as COCO
    has it, ``annotations/instances_test2017.json`` with ``test2017``.

    Raises:
        FileNotFoundError: If it has none of them.
    """
    for name in names:
        files = [
            folder / f'{name}.json',
            *sorted(folder.glob(f'annotations/*{name}*.json'))
        ]
        for file in filter(Path.is_file, files):
            for images in (name, file.stem.rpartition('_')[2]):
                if (folder / images).is_dir():
                    return CocoSplit(file, folder / images)
    name = names[0]
    raise FileNotFoundError(
        f'expected boxes in {folder} as COCO has them, {name}.json with the '
        f'images in {name}/ or annotations/instances_{name}2017.json with '
        f'{name}2017/, for one of {", ".join(names)}; found neither')


def write_few(split: CocoSplit, number: Optional[int], seed: int,
              file: Path) -> None:
    """List some of the images, and their boxes.

    Images without a box are drawn like others, as one finds out by labelling.

    Args:
        split (CocoSplit): The images to draw from.
        number (int, optional): Of the images; None for all.
        seed (int): Every seed draws others.
        file (Path): The JSON file to write.

    Raises:
        ValueError: If there are fewer images, or none that is drawn has a
            box.
    """
    content = split.read()
    images = sorted(content['images'], key=lambda image: image['id'])
    if number is not None:
        if number > len(images):
            raise ValueError(f'expected at least {number} images in '
                             f'{split.annotations}, found {len(images)}')
        images = random.Random(seed).sample(images, number)
    kept = {image['id'] for image in images}
    boxes = [box for box in content['annotations'] if box['image_id'] in kept]
    if not boxes:
        raise ValueError(
            f'expected images with boxes, but none of the {len(images)} that '
            f'seed {seed} draws from {split.annotations} has one; take more '
            'images or another seed')
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(
        json.dumps(dict(content, images=images, annotations=boxes)), 'utf-8')
