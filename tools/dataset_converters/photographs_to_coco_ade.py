# Copyright (c) greenmim authors. All rights reserved.
"""Make a tiny detection and a tiny segmentation set, in seconds.

    python tools/dataset_converters/photographs_to_coco_ade.py data

writes ``data/coco`` and ``data/ade``, in the layouts of COCO and ADE20K and
with their categories, so that every recipe for these runs on them. Objects
are cut from the photographs of scikit-image and pasted on others; nothing is
downloaded. The same seed writes the same pixels.
"""
import argparse
import json
import sys
from pathlib import Path
from typing import List, Tuple

import numpy as np
from PIL import Image, ImageDraw
from torchvision.models.detection import MaskRCNN_ResNet50_FPN_Weights

from greenmim.command import run_tool
from greenmim.datasets.sample_photographs import load_photograph

WIDTH, HEIGHT = 192, 128
TRIES = 4  # to place an object in an image
# Index = COCO's category id; some ids are not in use.
COCO_NAMES = MaskRCNN_ResNet50_FPN_Weights.COCO_V1.meta['categories']
UNUSED = ('__background__', 'N/A')
# Photograph: its label in ADE20K, where 0 means unlabelled.
BACKGROUNDS = dict(brick=1, grass=10, gravel=14)  # wall, grass, earth
# COCO's name: (label in ADE20K, photograph, outline as x,y in it)
OBJECTS = {
    'person': (
        13, 'astronaut',
        '230,15 265,20 290,45 300,80 292,110 275,132 262,150 258,175 '
        '285,195 302,225 300,250 330,265 350,300 362,350 320,365 290,400 '
        '278,450 280,511 100,511 40,470 22,430 28,360 50,280 80,245 113,215 '
        '115,185 135,160 165,150 190,155 182,130 165,118 155,90 160,55 '
        '185,25 205,17'),
    'cat': (
        127, 'chelsea',
        '40,0 345,0 352,60 355,120 335,180 305,225 300,260 270,290 235,299 '
        '100,299 60,260 45,200 30,140 35,60'),
    'cup': (
        148, 'coffee',
        '175,90 180,60 205,35 250,18 310,18 360,30 395,55 408,90 404,130 '
        '390,190 365,225 330,235 320,260 290,285 262,280 240,300 215,306 '
        '198,290 205,255 215,232 195,200 180,150'),
    'motorcycle': (
        117, 'stereo_motorcycle',
        '100,205 125,200 140,155 160,158 235,175 265,190 345,190 360,165 '
        '385,135 430,130 470,120 500,100 530,100 560,130 580,125 580,140 '
        '562,150 560,175 545,200 575,262 620,275 643,300 680,360 683,410 '
        '665,445 630,448 580,430 545,390 515,345 505,310 480,300 470,350 '
        '430,380 350,375 340,435 325,435 325,370 290,360 250,395 200,400 '
        '150,375 125,330 122,285 140,245 110,240'),
}  # yapf: disable
# Folders and files of the two layouts, for training and validation.
SPLITS = (('train2017', 'training'), ('val2017', 'validation'))


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description='Make tiny sets in the layouts of COCO and ADE20K')
    parser.add_argument(
        'out', type=Path, help='the folder to make coco/ and ade/ in')
    parser.add_argument(
        '--num-train', type=int, default=24, help='images to train on')
    parser.add_argument(
        '--num-val', type=int, default=8, help='images to validate on')
    parser.add_argument('--seed', type=int, default=0)
    args = parser.parse_args()
    if args.num_train < 1 or args.num_val < 1:
        parser.error('--num-train and --num-val expect positive numbers')
    return args


def cut(name: str, height: int,
        flip: bool) -> Tuple[Image.Image, Image.Image, np.ndarray]:
    """Cut an object out of its photograph.

    Returns:
        tuple: The object's box as a picture ``height`` pixels high, its mask
        of the same size (0 or 255), and its outline (N, 2) therein.
    """
    _, photograph, outline = OBJECTS[name]
    points = np.array([point.split(',') for point in outline.split()],
                      dtype=float)
    (left, top), (right, bottom) = points.min(0), points.max(0)
    scale = height / (bottom - top)
    size = (round((right - left) * scale), height)
    picture = Image.fromarray(load_photograph(photograph)).resize(
        size, Image.Resampling.LANCZOS, box=(left, top, right, bottom))
    points = (points - (left, top)) * scale
    if flip:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        points[:, 0] = size[0] - points[:, 0]
    mask = Image.new('L', size)
    ImageDraw.Draw(mask).polygon([tuple(point) for point in points], fill=255)
    return picture, mask, points


def compose(
    generator: np.random.Generator
) -> Tuple[Image.Image, Image.Image, List[dict]]:
    """Paste objects that do not overlap on a background.

    Returns:
        tuple: The picture, its labels in ADE20K, and its annotations in
        COCO's form.
    """
    background = str(generator.choice(list(BACKGROUNDS)))
    texture = Image.fromarray(load_photograph(background))
    left = int(generator.integers(texture.width - WIDTH + 1))
    top = int(generator.integers(texture.height - HEIGHT + 1))
    picture = texture.crop((left, top, left + WIDTH, top + HEIGHT))
    labels = Image.new('L', picture.size, BACKGROUNDS[background])
    taken = np.zeros((HEIGHT, WIDTH), dtype=bool)
    annotations: List[dict] = []
    for _ in range(TRIES):
        name = str(generator.choice(list(OBJECTS)))
        cutout, mask, points = cut(name, int(generator.integers(48, 97)),
                                   bool(generator.integers(2)))
        left = int(generator.integers(WIDTH - cutout.width + 1))
        top = int(generator.integers(HEIGHT - cutout.height + 1))
        box = (slice(top, top + cutout.height), slice(left,
                                                      left + cutout.width))
        if taken[box].any():
            continue
        taken[box] = True
        picture.paste(cutout, (left, top), mask)
        labels.paste(OBJECTS[name][0], (left, top), mask)
        annotations.append(
            dict(
                category_id=COCO_NAMES.index(name),
                segmentation=[(points + (left, top)).flatten().tolist()],
                bbox=[left, top, cutout.width, cutout.height],
                area=int((np.asarray(mask) > 0).sum()),
                iscrowd=0))
    return picture, labels, annotations


def main() -> None:
    args = parse_args()
    coco, ade = args.out / 'coco', args.out / 'ade'
    for folder in (coco, ade):
        if folder.exists():
            sys.exit(f'{Path(__file__).name}: expected to make {folder}, but '
                     'it exists; name another folder, or remove it')
    ade = ade / 'ADEChallengeData2016'
    categories = [
        dict(id=i, name=name) for i, name in enumerate(COCO_NAMES)
        if name not in UNUSED
    ]
    (coco / 'annotations').mkdir(parents=True)
    generator = np.random.default_rng(args.seed)
    for (coco_split, ade_split), count in zip(SPLITS,
                                              (args.num_train, args.num_val)):
        image_folders = (coco / coco_split, ade / 'images' / ade_split)
        label_folder = ade / 'annotations' / ade_split
        for folder in (*image_folders, label_folder):
            folder.mkdir(parents=True)
        images, annotations = [], []
        for i in range(count):
            picture, labels, objects = compose(generator)
            for folder in image_folders:
                picture.save(folder / f'{i:04}.jpg', quality=95)
            labels.save(label_folder / f'{i:04}.png')
            images.append(
                dict(
                    id=i, file_name=f'{i:04}.jpg', width=WIDTH, height=HEIGHT))
            annotations += [
                dict(id=len(annotations) + j, image_id=i, **annotation)
                for j, annotation in enumerate(objects, 1)
            ]
        content = dict(
            images=images, annotations=annotations, categories=categories)
        (coco / 'annotations' / f'instances_{coco_split}.json').write_text(
            json.dumps(content))
        print(f'{count} images with {len(annotations)} objects in '
              f'{coco / coco_split} and {ade / "images" / ade_split}')


if __name__ == '__main__':
    run_tool(main)
