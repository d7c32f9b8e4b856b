# Copyright (c) greenmim authors. All rights reserved.
"""Errors, sentence and picture of held-out images."""
import pytest
import torch
from mmpretrain.models import SelfSupDataPreprocessor

from greenmim.visualization import (draw_learning, learning_columns,
                                    learning_sentence, squared_errors)

SIDE = 48


def result_of(factor):
    """A prediction that is wrong by a factor, of images of variance 4."""
    images = torch.full((2, 3, SIDE, SIDE), 10.)
    images[..., ::2] = 14.
    mask = torch.zeros(2, 1, SIDE, SIDE, dtype=torch.bool)
    mask[..., :16] = True
    return dict(
        pred=images + 2 * factor,
        target=images,
        drawn_target=images,
        mask=mask,
        known=images,
        drawn_known=images,
        naive=dict(mean=torch.full_like(images, 12.), smooth=images + 1.),
        pred_is_image=True,
        pred_uses_neighbour_statistics=False)


def test_errors_are_in_units_of_the_images_variance():
    error, naive = squared_errors([result_of(1), result_of(3)])
    assert error == pytest.approx((1 + 9) / 2)
    assert naive == pytest.approx(dict(mean=1., smooth=.25))


def test_visible_pixels_do_not_count():
    result = result_of(0)
    result['pred'][..., 16:] = 99.
    assert squared_errors([result])[0] == 0


@pytest.mark.parametrize('model, words', [
    (.4, 'the model errs by 20% less than the interpolation.'),
    (.75, 'the interpolation wins, the model errs by 50% more.'),
])
def test_the_sentence_says_who_won(model, words):
    sentence = learning_sentence('9 held-out images', model,
                                 dict(mean=1.04, smooth=.5), 8.)
    assert sentence.startswith(
        'Mean squared error of the masked pixels of 9 held-out images, in '
        f"units of the images' variance: {model:.3f} for the model, 0.500 for "
        'a smooth interpolation')
    assert '1.040 for their mean' in sentence and sentence.endswith(words)


def test_the_picture():
    preprocessor = SelfSupDataPreprocessor()
    result = result_of(1)
    before, prediction = learning_columns([result, result], preprocessor, 3)
    assert list(before) == ['image', 'masked', 'mean', 'interpolation']
    assert all(len(images) == 3 for images in before.values())
    assert (before['mean'][:, :, :16] == 12).all()
    # Visible pixels are the true ones in every column.
    for images in (before['mean'], before['interpolation'],
                   prediction.numpy()):
        assert (images[:, :, 16:] == before['image'][:, :, 16:]).all()
    assert (prediction[0, 0, :4, 0] == torch.tensor([16, 12, 16, 12])).all()
    sheet = draw_learning(before, {
        '0 %': prediction,
        '100 %': prediction
    }, ['Some words.'])
    # Six columns of images of 48 pixels, drawn twice as large; three rows
    assert sheet.shape == (20 + 3 * 104 + 20, 8 + 6 * 104, 3)
