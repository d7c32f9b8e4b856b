# Copyright (c) greenmim authors. All rights reserved.
import base64
import re
from html.parser import HTMLParser
from io import BytesIO

import numpy as np
from PIL import Image

from greenmim.visualization import write_pictures


class Balance(HTMLParser):
    """Fails where a tag is not closed by its own."""

    def __init__(self):
        super().__init__()
        self.open, self.text = [], []

    def handle_starttag(self, tag, attrs):
        if tag not in ('img', 'meta'):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def test_page_holds_its_pictures_and_nothing_from_elsewhere(tmp_path):
    rng = np.random.default_rng(0)
    columns = {
        name: rng.integers(0, 256, (2, 8, 12, 3), dtype='uint8')
        for name in ('input', 'a < b')
    }
    page = tmp_path / 'new' / 'page.html'
    write_pictures(page, 'Title & co', columns, ['<1>.png', '2.png'],
                   ['A caption.'], ['remark', ''])
    text = page.read_text('utf-8')
    parser = Balance()
    parser.feed(text)
    assert not parser.open
    shown = ''.join(parser.text)
    for words in 'Title & co', '<1>.png', 'a < b', 'A caption.', 'remark':
        assert words in shown
    sources = re.findall(r'src="([^"]*)"', text)
    pictures = []
    for source in sources:
        head, data = source.split(',')
        assert head == 'data:image/png;base64'
        pictures.append(
            np.asarray(Image.open(BytesIO(base64.b64decode(data)))))
    expected = [columns[name][i] for i in range(2) for name in columns]
    assert len(pictures) == 4
    for found, picture in zip(pictures, expected):
        assert np.array_equal(found, picture)
    assert not re.search(r'https?:|<script|<link|url\(', text)
