# Copyright (c) greenmim authors. All rights reserved.
"""Images of other numbers of channels, from file to loss."""
import numpy as np
import pytest
import tifffile
import torch
from mmengine.dataset import default_collate
from mmpretrain.models import SelfSupDataPreprocessor
from torch.utils.data import DataLoader

from greenmim._mmengine import swaps_channels
from greenmim.datasets import ImageFolder, LoadImage
from greenmim.models.utils import ChannelDataPreprocessor
from tests.micro import micro_config, micro_model

CROP = [
    dict(type='mmpretrain.RandomResizedCrop', scale=64),
    dict(type='mmpretrain.RandomFlip', prob=0.5),
    dict(type='mmpretrain.PackInputs')
]


def images_of(channels, number=4):
    rng = np.random.default_rng(0)
    levels = rng.integers(60, 200, (number, 1, 1, channels))
    noise = rng.normal(0, 20, (number, 80, 70, channels))
    return (levels + noise).clip(0, 255).astype(np.uint8)


def save(path, array):
    if path.suffix == '.npy':
        np.save(path, array)
    else:
        tifffile.imwrite(path, array, photometric='minisblack')


@pytest.mark.parametrize('kind', ['.npy', '.tif'])
@pytest.mark.parametrize('channels', [1, 4, 13])
def test_training(channels, kind, tmp_path):
    """A few steps on the same images lower the loss."""
    images = images_of(channels)
    for i, image in enumerate(images):
        array = image[..., 0] if channels == 1 else image
        save(tmp_path / f'{i}{kind}', array)
    dataset = ImageFolder(
        str(tmp_path),
        [dict(type='greenmim.LoadImage', channels=channels), *CROP],
        extensions=(kind, ))
    config = micro_config(channels)
    torch.manual_seed(0)
    model = micro_model(
        randomise=False,
        backbone=config['backbone'],
        neck=config['neck'],
        head=dict(type='greenmim.GreenMIMHead', norm_pix=False),
        data_preprocessor=dict(
            type='greenmim.ChannelDataPreprocessor',
            mean=images.mean((0, 1, 2)).tolist(),
            std=images.std((0, 1, 2)).tolist()))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    preprocessor = model.data_preprocessor
    losses = []
    for _ in range(6):
        for batch in DataLoader(dataset, 4, collate_fn=default_collate):
            data = preprocessor(batch, training=True)
            expected = (batch['inputs'].permute(0, 2, 3, 1).numpy() -
                        images.mean((0, 1, 2))) / images.std((0, 1, 2))
            np.testing.assert_allclose(
                data['inputs'].permute(0, 2, 3, 1), expected, atol=1e-5)
            assert data['inputs'].shape == (4, channels, 64, 64)
            loss = model(**data, mode='loss')['loss']
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss))
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.parametrize('first', [False, True])
@pytest.mark.parametrize('channels', [1, 3, 4, 13])
def test_npy_holds_what_was_saved(channels, first, tmp_path):
    """With the channels last or first; three of them become BGR."""
    image = images_of(channels, 1)[0]
    path = tmp_path / 'image.npy'
    np.save(path, image.transpose(2, 0, 1) if first else image)
    loaded = LoadImage(channels)(dict(img_path=str(path)))['img']
    expected = image[..., ::-1] if channels == 3 else image
    np.testing.assert_array_equal(
        loaded, expected[..., 0] if channels == 1 else expected)
    assert loaded.flags['C_CONTIGUOUS'] and loaded.dtype == np.uint8


def test_npy_of_other_channels_or_objects_is_unreadable(tmp_path):
    np.save(tmp_path / 'image.npy', images_of(4, 1)[0])
    with pytest.raises(ValueError, match='expected 13 bands'):
        LoadImage(13)(dict(img_path=str(tmp_path / 'image.npy')))
    np.save(tmp_path / 'pickle.npy', np.array([{}], dtype=object))
    with pytest.raises(ValueError, match='allow_pickle'):
        LoadImage(4)(dict(img_path=str(tmp_path / 'pickle.npy')))


def test_npy_of_16_bits_is_scaled(tmp_path):
    path = tmp_path / 'image.npy'
    np.save(path, np.array([[0, 2000, 4000]], dtype=np.uint16))
    load = LoadImage(1, white_level=4000)
    np.testing.assert_array_equal(
        load(dict(img_path=str(path)))['img'], [[0, 128, 255]])


@pytest.mark.parametrize('mean, std', [([1., 2.], [1.]), ([1.], [0.])])
def test_statistics_that_do_not_fit_are_refused(mean, std):
    with pytest.raises(ValueError, match='for every channel'):
        ChannelDataPreprocessor(mean, std)


def test_channels_that_cannot_be_swapped_are_refused():
    with pytest.raises(ValueError, match='three channels.*got 4.*to_rgb'):
        ChannelDataPreprocessor([1.] * 4, [1.] * 4, to_rgb=True)


@pytest.mark.parametrize('views', [0, 2])
@pytest.mark.parametrize('to_rgb', [False, True])
def test_channels_are_flipped_without_an_index(to_rgb, views):
    """A list of channels would be sent to the device in every step."""
    options = dict(mean=[1., 2., 3.], std=[2., 3., 4.], to_rgb=to_rgb)
    images = torch.randint(0, 255, (2, 3, 4, 5), dtype=torch.uint8)
    data = dict(inputs=[images] * views or images, data_samples=['sample'])
    expected = SelfSupDataPreprocessor(**options)(data)
    preprocessor = ChannelDataPreprocessor(**options)
    with torch.profiler.profile() as profile:
        actual = preprocessor(data)
    assert actual['data_samples'] == ['sample']
    torch.testing.assert_close(
        actual['inputs'], expected['inputs'], rtol=0, atol=0)
    assert swaps_channels(preprocessor) is to_rgb
    names = {event.key for event in profile.key_averages()}
    assert 'aten::sub' in names and 'aten::index' not in names
