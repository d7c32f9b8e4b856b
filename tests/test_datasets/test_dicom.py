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
    for name, value in tags.items():
        setattr(file, name, value)
    file.PixelData = values.tobytes()
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
