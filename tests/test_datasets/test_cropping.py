# Copyright (c) greenmim authors. All rights reserved.
"""Fast crops and flips against those of Pillow and MMCV."""
import cv2
import numpy as np
import pytest
from mmcv.transforms import RandomFlip as SlowFlip
from mmengine.registry import init_default_scope
from mmpretrain.datasets import RandomResizedCrop as SlowCrop
from PIL import Image

from greenmim.datasets import ImageFolder, LoadImage
from greenmim.datasets.decoding import jpeg
from greenmim.datasets.sample_photographs import load_photograph
from greenmim.datasets.seeding import SeededIndex
from greenmim.datasets.transforms import (RandomFlip, RandomResizedCrop,
                                          resize_crop)

PHOTOGRAPHS = 'astronaut', 'chelsea', 'coffee', 'rocket'
METHODS = dict(
    bilinear=Image.Resampling.BILINEAR, bicubic=Image.Resampling.BICUBIC)


def difference(image, box, size, interpolation):
    """The mean difference from Pillow's result, of 255."""
    top, left, height, width = box
    crop = Image.fromarray(image[top:top + height, left:left + width])
    slow = np.asarray(
        crop.resize(size[::-1], METHODS[interpolation]), np.float32)
    return abs(resize_crop(image, box, size, interpolation) - slow).mean()


@pytest.mark.parametrize('interpolation', METHODS)
@pytest.mark.parametrize('factor, of_all, of_one', [
    (0.6, .75, 1.3),
    (1.2, .75, 1.3),
    (1.5, .75, 1.3),
    (2.1, .75, 1.3),
    (2.6, 1.4, 2.3),
    (4., 1.4, 2.3),
])
def test_as_sharp_as_pillow(interpolation, factor, of_all, of_one):
    """The bounds that :func:`resize_crop` states."""
    size = 72, 64
    height, width = (round(factor * length) for length in size)
    rng = np.random.default_rng(0)
    found = []
    for name in PHOTOGRAPHS:
        image = load_photograph(name)
        for _ in range(3):
            top = rng.integers(image.shape[0] - height + 1)
            left = rng.integers(image.shape[1] - width + 1)
            found.append(
                difference(image, (top, left, height, width), size,
                           interpolation))
    assert np.mean(found) < of_all and max(found) < of_one


def test_nothing_changes_what_has_its_size():
    image = load_photograph('chelsea')
    np.testing.assert_array_equal(
        resize_crop(image, (10, 20, 64, 48), (64, 48)), image[10:74, 20:68])


def test_fine_stripes_become_grey():
    """OpenCV alone makes coarse stripes of them."""
    stripes = np.zeros((96, 96), np.uint8)
    stripes[:, ::2] = 255
    slow = np.asarray(
        Image.fromarray(stripes).resize((56, 96), Image.Resampling.BICUBIC))
    fast = resize_crop(stripes, (0, 0, 96, 96), (96, 56))
    plain = cv2.resize(stripes, (56, 96), interpolation=cv2.INTER_CUBIC)
    assert slow.std() < 40 and fast.std() < 40 < 80 < plain.std()


def test_a_box_between_pixels():
    """A crop of a reduced image lies where that of the whole image lies."""
    ramp = np.tile(np.arange(0, 240, dtype=np.uint8), (64, 1))
    found = resize_crop(ramp, (3.25, 10.5, 32., 100.), (16, 50), 'bilinear')
    # Pixels of the result are two wide, from 10.5 on; a pixel's value is
    # that of its middle.
    expected = 10.5 + 2 * (np.arange(50) + .5) - .5
    assert abs(found - expected)[:, 1:-1].max() <= 1


@pytest.mark.parametrize('shape', [(90, 120, 3), (90, 120), (30, 200, 3)])
def test_same_crops(shape):
    image = np.random.default_rng(0).integers(0, 255, shape, np.uint8)
    fast, slow = RandomResizedCrop(32), SlowCrop(
        32, interpolation='bicubic', backend='pillow')
    for seed in range(10):
        results = []
        for crop in fast, slow:
            np.random.seed(seed)
            results.append((crop.rand_crop_params(image), np.random.rand()))
            np.random.seed(seed)
            out = crop(dict(img=image))
            assert out['img'].shape == out['img_shape'] == (32, 32, *shape[2:])
        assert results[0] == results[1]


@pytest.mark.parametrize('change', [
    dict(decoder='pillow'),
    dict(interpolation='lanczos'),
])
def test_the_rest_is_resized_by_the_backend(change):
    image = load_photograph('chelsea')
    options = dict(interpolation=change.pop('interpolation', 'bicubic'))
    results = []
    for crop in RandomResizedCrop(64, **options), SlowCrop(
            64, backend='pillow', **options):
        np.random.seed(0)
        results.append(crop(dict(img=image, **change))['img'])
    np.testing.assert_array_equal(*results)


def test_more_channels_are_resized_by_opencv():
    image = np.random.default_rng(0).random((90, 90, 5), np.float32)
    crop = RandomResizedCrop(32, interpolation='bilinear', backend='cv2')
    assert crop(dict(img=image))['img'].shape == (32, 32, 5)


@pytest.fixture
def photos(tmp_path):
    """A large photograph, a small one, a PNG, and a damaged photograph."""
    large = cv2.resize(
        load_photograph('coffee'), None, fx=3, fy=3)  # 1200 x 1800
    for name, image in [('0.jpg', large),
                        ('1.jpg', load_photograph('chelsea')),
                        ('2.png', load_photograph('chelsea'))]:
        Image.fromarray(image).save(tmp_path / name)
    content = (tmp_path / '1.jpg').read_bytes()
    (tmp_path / '3.jpg').write_bytes(content[:len(content) // 2])
    return tmp_path


def dataset(folder, decoder='opencv', slow=False, **load):
    init_default_scope('mmpretrain')
    crop = dict(
        type='greenmim.RandomResizedCrop',
        scale=96,
        crop_ratio_range=(0.2, 1.0),
        backend='pillow',
        interpolation='bicubic')
    flip = dict(type='greenmim.RandomFlip', prob=0.5)
    if slow:
        crop['type'], flip['type'] = 'RandomResizedCrop', 'RandomFlip'
    return ImageFolder(
        str(folder), [
            dict(type='greenmim.LoadImage', decoder=decoder, **load), crop,
            flip,
            dict(type='PackInputs')
        ])


@pytest.mark.parametrize('load', [{}, dict(min_side=300)], ids=str)
def test_samples_of_both_decoders(photos, monkeypatch, load):
    """Crop, flip and the image that replaces a damaged one are the same."""
    scales = []
    decode = jpeg.Photograph.decode

    def watched(self, smaller=1):
        scales.append(self.scale * smaller)
        return decode(self, smaller)

    monkeypatch.setattr(jpeg.Photograph, 'decode', watched)
    fast, slow = dataset(photos, **load), dataset(photos, 'pillow', True,
                                                  **load)
    chosen = dataset(photos, 'pillow', **load)
    for seed in range(12):
        for index in range(4):
            samples = [
                one[SeededIndex(index, seed)] for one in (fast, slow, chosen)
            ]
            metas = [dict(s['data_samples'].metainfo_items()) for s in samples]
            assert metas[0] == metas[1] == metas[2]
            images = [s['inputs'].float() for s in samples]
            assert (images[0] - images[1]).abs().mean() < 2.3
            assert (images[1] == images[2]).all()  # Pillow asked for by name
    assert {4, 8} & set(scales) and 1 in scales


def test_draws_do_not_depend_on_the_decoder(photos):
    """Nor does what is drawn after the crop."""
    for decoder in 'opencv', 'pillow':
        load = LoadImage(decoder=decoder)
        crop = RandomResizedCrop(64)
        np.random.seed(3)
        crop(load.transform(dict(img_path=str(photos / '0.jpg')), crop))
        drawn = np.random.rand()
        if decoder == 'opencv':
            expected = drawn
    assert drawn == expected


@pytest.mark.parametrize('direction, prob', [
    ('horizontal', 0.5),
    ('vertical', 0.25),
    (['horizontal', 'diagonal'], 0.6),
    (['horizontal', 'vertical'], [0.2, 0.3]),
])
@pytest.mark.parametrize('dtype', ['uint8', 'float32'])
def test_same_flips(direction, prob, dtype):
    image = np.random.default_rng(0).random((6, 5, 3)) * 255
    image = image.astype(dtype)
    flips = [
        kind(prob=prob, direction=direction) for kind in (RandomFlip, SlowFlip)
    ]
    directions = set()
    for seed in range(30):
        results = []
        for flip in flips:
            np.random.seed(seed)
            results.append(flip(dict(img=image)))
            results[-1]['next'] = np.random.rand()
        fast, slow = results
        np.testing.assert_array_equal(fast.pop('img'), slow.pop('img'))
        assert fast == slow
        directions.add(fast['flip_direction'])
    assert len(directions) == (3 if isinstance(direction, list) else 2)
