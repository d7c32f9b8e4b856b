# Copyright (c) greenmim authors. All rights reserved.
"""Pictures in one HTML file, or on one sheet."""
import base64
from html import escape
from io import BytesIO
from pathlib import Path
from typing import Dict, Sequence

import numpy as np
from PIL import Image

from .sheet import draw_sheet

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
