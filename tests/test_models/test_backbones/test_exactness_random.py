# Copyright (c) greenmim authors. All rights reserved.
"""Visible-only backbones against the dense twin on random shapes."""
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from .test_exactness import (FAMILIES, UNIT, build, draw_images, errors,
                             output_and_grads)


@st.composite
def masks(draw, batch: int) -> torch.Tensor:
    """Bool (1 or B, Gh, Gw) of up to 3x3 units, True = masked."""
    grid = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    units = grid[0] * grid[1]
    kept = draw(st.integers(1, units))
    order = st.permutations(range(units))
    num_masks = draw(st.sampled_from([1, batch]))
    mask = torch.ones(num_masks, units, dtype=torch.bool)
    for row in mask:
        row[draw(order)[:kept]] = False
    return mask.view(num_masks, *grid)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.data())
def test_equals_twin(data):
    """Fp64 within 1e-10, fp32 as close as the dense model or 1e-5."""
    draw = data.draw
    family = draw(st.sampled_from(FAMILIES))
    batch = draw(st.integers(1, 3))
    mask = draw(masks(batch))
    size = tuple(UNIT * cells for cells in mask.shape[1:])
    kwargs = dict(
        window_size=draw(st.lists(st.integers(1, 15), min_size=4, max_size=4)),
        pad_small_map=draw(st.booleans()),
        attn_backend=draw(st.sampled_from(['eager', 'sdpa'])),
        in_channels=draw(st.integers(1, 4)),
        use_abs_pos_embed=draw(st.booleans()),
        with_cp=draw(st.booleans()),
        img_size=size)
    exact = build(family, **kwargs)
    images = draw_images(exact, size, batch)
    expected = output_and_grads(lambda x: family.twin(exact)(x, mask), exact,
                                images)
    if draw(st.booleans()):
        actual = output_and_grads(lambda x: exact(x, mask), exact, images)
        assert max(errors(actual, expected)) <= 1e-10
        return
    model = build(family, torch.float32, **kwargs)
    images = images.float()
    actual = output_and_grads(lambda x: model(x, mask), model, images)
    dense = output_and_grads(lambda x: family.twin(model)(x, mask), model,
                             images)
    for error, noise in zip(errors(actual, expected), errors(dense, expected)):
        assert error <= max(1e-5, 4 * noise)
