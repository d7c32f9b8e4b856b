# Copyright (c) greenmim authors. All rights reserved.
"""docs/stability.md names the public interface, all of it."""
import importlib
import re

import greenmim
from greenmim.command import COMMANDS
from tests.conftest import CHECKOUT
from tests.documents import Page

PAGE = Page('docs/stability.md')


def part(title):
    return re.search(rf'\*\*{title}\.\*\*(.*?)(?=^- \*\*|^\|)', PAGE.text,
                     re.M | re.S)[1]


def test_commands_and_front_door():
    commands = re.findall(r'`([a-z]+)`', part('The command'))
    assert set(commands) == {'greenmim', *COMMANDS}
    front_door = re.findall(r'`greenmim\.(\w+)`', part('The front door'))
    assert {*front_door, '__version__'} == set(greenmim.__all__)


def test_packages_are_those_of_the_api_pages():
    rows = re.findall(r'^\| `([\w.]+)` \| \[.*\]\((.*)\) \|$', PAGE.text, re.M)
    pages = {page for _, page in rows}
    assert pages == {
        f'api/{path.name}'
        for path in (CHECKOUT / 'docs' / 'api').glob('*.md')
    }
    for package, page in rows:
        importlib.import_module(package)
        text = (CHECKOUT / 'docs' / page).read_text('utf-8')
        assert f'::: {package}' in text


def test_the_package_is_typed():
    assert (CHECKOUT / 'greenmim' / 'py.typed').is_file()
