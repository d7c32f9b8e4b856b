# Copyright (c) greenmim authors. All rights reserved.
from typing import Any, Dict, List, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

GAP = 8  # pixels between pictures and around them
TEXT = 20  # height of a line of text


def draw_sheet(
    columns: Dict[str,
                  np.ndarray], captions: Sequence[str] = ()) -> np.ndarray:
    """Put pictures side by side, one row for each image.

    Args:
        columns (dict[str, np.ndarray]): The name of every column and its
            pictures, uint8 of shape (B, H, W, 3).
        captions (Sequence[str]): Paragraphs below the pictures.

    Returns:
        np.ndarray: uint8, (rows, columns, 3), RGB. The picture of row i and
        column j starts at pixel
        ``(TEXT + i * (H + GAP), GAP + j * (W + GAP))``.
    """
    B, H, W, _ = next(iter(columns.values())).shape
    width = len(columns) * (W + GAP) - GAP
    lines = [line for text in captions for line in _wrap(text, width)]
    size = (width + 2 * GAP, TEXT + B * (H + GAP) + TEXT * len(lines))
    sheet = Image.new('RGB', size, 'white')
    draw = ImageDraw.Draw(sheet)
    for j, (name, images) in enumerate(columns.items()):
        x = GAP + j * (W + GAP)
        draw.text((x, 2), name, 'black', _font())
        for i, image in enumerate(images):
            sheet.paste(Image.fromarray(image), (x, TEXT + i * (H + GAP)))
    for i, line in enumerate(lines):
        y = TEXT + B * (H + GAP) + i * TEXT
        draw.text((GAP, y), line, 'black', _font())
    return np.array(sheet)


def _font() -> Any:
    return ImageFont.load_default(size=13)


def _wrap(text: str, width: int) -> List[str]:
    """Break a text into lines of at most ``width`` pixels."""
    lines = ['']
    for word in text.split():
        longer = f'{lines[-1]} {word}'.strip()
        if _font().getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines
