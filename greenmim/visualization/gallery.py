# Copyright (c) greenmim authors. All rights reserved.
"""Pictures side by side, on one sheet or on a page of HTML."""
import base64
from html import escape
from io import BytesIO
from pathlib import Path
from typing import Any, Dict, List, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

GAP = 8  # pixels between pictures and around them
TEXT = 20  # height of a line of text

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto;
       max-width: 90rem; padding: 0 1rem; color: #222; background: #fafafa }}
h1 {{ font-size: 1.4rem }}
p {{ max-width: 60rem; margin: .3rem 0 }}
h2 {{ font-size: 1rem; margin: 1.6rem 0 .4rem; overflow-wrap: anywhere }}
h2 small {{ font-weight: normal; color: #666 }}
.row {{ display: grid; gap: .6rem;
       grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)) }}
figure {{ margin: 0; max-width: 28rem }}
img {{ width: 100%; display: block; image-rendering: pixelated }}
figcaption {{ color: #666; font-size: .85rem }}
</style>
</head>
<body>
<h1>{title}</h1>
{captions}
{rows}
</body>
</html>
"""


def write_pictures(
    path: Path,
    title: str,
    columns: Dict[str, np.ndarray],
    names: Sequence[str],
    captions: Sequence[str] = (),
    remarks: Sequence[str] = ()
) -> None:
    """Write an HTML page if the path ends in ``.html``, otherwise one picture.

    The page holds its pictures and needs no other file. A picture has no
    title, names and remarks.

    Args:
        path (Path): The file to write. Folders are made.
        title (str): Title of the page.
        columns (dict[str, np.ndarray]): The name of every column and its
            pictures, uint8 of shape (B, H, W, 3), RGB.
        names (Sequence[str]): The name of every image.
        captions (Sequence[str]): Paragraphs below the heading, or below the
            pictures. Defaults to an empty tuple, none.
        remarks (Sequence[str]): A remark after the name of every image.
            Defaults to an empty tuple, none.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix != '.html':
        Image.fromarray(draw_sheet(columns, captions)).save(path)
        return
    remarks = remarks or [''] * len(names)
    rows = []
    for i, (name, remark) in enumerate(zip(names, remarks)):
        figures = [
            f'<figure><img src="{_data_url(images[i])}" '
            f'alt="{escape(column)}"><figcaption>{escape(column)}'
            '</figcaption></figure>' for column, images in columns.items()
        ]
        rows.append(
            f'<h2>{escape(name)} <small>{escape(remark)}</small></h2>\n'
            '<div class="row">\n' + '\n'.join(figures) + '\n</div>')
    path.write_text(
        PAGE.format(
            title=escape(title),
            captions='\n'.join(f'<p>{escape(text)}</p>' for text in captions),
            rows='\n'.join(rows)), 'utf-8')


def _data_url(image: np.ndarray) -> str:
    buffer = BytesIO()
    Image.fromarray(image).save(buffer, 'PNG', optimize=True)
    return 'data:image/png;base64,' + base64.b64encode(
        buffer.getvalue()).decode()


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
