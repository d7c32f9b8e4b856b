# Copyright (c) greenmim authors. All rights reserved.
from io import BytesIO

import numpy as np
import pytest

from greenmim.datasets.decoding import decode_image

pydicom = pytest.importorskip('pydicom')


def dicom(values, photometric='MONOCHROME2', **tags):
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = '1.2.3'
    file = FileDataset(None, {}, file_meta=meta, preamble=b'\0' * 128)
    file.Rows, file.Columns = values.shape
    file.SamplesPerPixel = 1
    file.PhotometricInterpretation = photometric
    file.BitsAllocated = file.BitsStored = 16
    file.HighBit = 15
    file.PixelRepresentation = int(values.dtype.kind == 'i')
    file.PixelData = values.tobytes()
    for name, value in tags.items():
        setattr(file, name, value)
    buffer = BytesIO()
    file.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


STORED = np.array([[0, 1000], [1500, 2000]], np.int16)
RESCALED = dict(RescaleSlope=2, RescaleIntercept=-2000)  # -2000 to 2000


def test_rescaled_values_map_by_the_window_or_a_given_range():
    content = dicom(STORED, WindowCenter=0, WindowWidth=4000, **RESCALED)
    assert decode_image(content, channels=1).tolist() == [[0, 128], [191, 255]]
    image = decode_image(content, channels=1, black_level=0, white_level=1000)
    assert image.tolist() == [[0, 0], [255, 255]]


def test_without_a_window_a_range_is_needed():
    content = dicom(STORED, **RESCALED)
    with pytest.raises(ValueError, match='-2000 to 2000.*black_level'):
        decode_image(content, channels=1)


def test_white_may_be_the_smallest_value():
    content = dicom(STORED, 'MONOCHROME1', WindowCenter=1000, WindowWidth=2000)
    assert decode_image(content, channels=1).tolist() == [[255, 128], [64, 0]]


def test_without_window_and_rescaling_the_bits_are_the_scale():
    stored = np.array([[0, 1000], [4095, 2000]], np.uint16)
    content = dicom(stored, BitsStored=12)
    assert decode_image(content, channels=1).tolist() == [[0, 62], [255, 125]]


@pytest.mark.parametrize('width', [0, -5])
def test_a_window_without_width_is_none(width):
    content = dicom(STORED, WindowCenter=0, WindowWidth=width)
    with pytest.raises(ValueError, match='0 to 2000.*black_level'):
        decode_image(content, channels=1)


def test_padding_is_no_data():
    content = dicom(
        STORED,
        WindowCenter=0,
        WindowWidth=4000,
        PixelPaddingValue=2000,
        **RESCALED)
    assert decode_image(content, channels=1).tolist() == [[0, 128], [191, 0]]


def test_a_palette_becomes_colour():
    index = np.arange(256, dtype=np.uint16).reshape(16, 16)
    tags = {}
    tables = np.arange(256), np.arange(256)[::-1], np.arange(256) // 2
    for name, table in zip(('Red', 'Green', 'Blue'), tables):
        name = f'{name}PaletteColorLookupTable'
        tags[f'{name}Descriptor'] = [256, 0, 16]
        tags[f'{name}Data'] = (table * 257).astype('<u2').tobytes()
    image = decode_image(dicom(index, 'PALETTE COLOR', **tags))
    expected = np.stack(tables[::-1], -1).reshape(16, 16, 3)
    assert abs(image.astype(int) - expected).max() <= 1


def test_colours_and_the_first_of_several_frames():
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (2, 4, 6, 3), dtype=np.uint8)
    tags = dict(
        Rows=4,
        Columns=6,
        SamplesPerPixel=3,
        PlanarConfiguration=0,
        BitsAllocated=8,
        BitsStored=8,
        HighBit=7)
    one = dicom(
        frames[0, ..., 0], 'RGB', PixelData=frames[0].tobytes(), **tags)
    both = dicom(
        frames[0, ..., 0],
        'RGB',
        PixelData=frames.tobytes(),
        NumberOfFrames=2,
        **tags)
    for content in one, both:
        assert np.array_equal(decode_image(content)[..., ::-1], frames[0])
    grey = frames[..., 0].astype(np.uint16) * 257
    content = dicom(grey[0], PixelData=grey.tobytes(), NumberOfFrames=2)
    assert np.array_equal(decode_image(content, 1), frames[0, ..., 0])


def test_rescaling_and_window_of_a_frame():
    from pydicom.dataset import Dataset
    rescaling, window, groups = Dataset(), Dataset(), Dataset()
    rescaling.RescaleSlope, rescaling.RescaleIntercept = 2, -2000
    window.WindowCenter, window.WindowWidth = 0, 4000
    groups.PixelValueTransformationSequence = [rescaling]
    groups.FrameVOILUTSequence = [window]
    content = dicom(STORED, SharedFunctionalGroupsSequence=[groups])
    assert decode_image(content, channels=1).tolist() == [[0, 128], [191, 255]]
