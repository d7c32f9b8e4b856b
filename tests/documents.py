# Copyright (c) greenmim authors. All rights reserved.
"""The documents: their blocks of code, commands and links.

A test module of a page takes the blocks that its tests run or compare, when
it is imported::

    PAGE = Page('docs/data.md')
    CONFIGS = PAGE.take('python')

``test_documents.py`` fails for a block that nobody took.
"""
import importlib
import inspect
import re
import shlex
import uuid
from configparser import ConfigParser
from importlib.util import find_spec
from pathlib import Path
from typing import Callable, Dict, List, Set, Tuple

from greenmim.command import COMMANDS
from tests.conftest import CHECKOUT

NAMES = [
    path.relative_to(CHECKOUT).as_posix()
    for path in (CHECKOUT / 'README.md', CHECKOUT / 'CONTRIBUTING.md',
                 CHECKOUT / 'benchmarks' / 'README.md',
                 *sorted((CHECKOUT / 'docs').rglob('*.md')))
]
# Options of mim itself; what it does not know goes to train.py.
MIM_FLAGS = {'--launcher', '--gpus', '--gpus-per-node', '--partition'}
# Of each page, the (language, text) of the blocks that its test took.
TAKEN: Dict[str, Set[Tuple[str, str]]] = {}


class Page:
    """A page of the documents.

    Args:
        name (str): Its path in the repository.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.path: Path = CHECKOUT / name
        self.text = self.path.read_text(encoding='utf-8')

    def blocks(self) -> List[Tuple[str, str]]:
        """(language, text) of every block of code, in order."""
        return re.findall(r'^```(\w+)\n(.*?)^```', self.text, re.M | re.S)

    def take(self, language: str, part: str = '') -> List[str]:
        """Take the blocks of a language that contain a text, for a test."""
        taken = [
            text for name, text in self.blocks()
            if name == language and part in text
        ]
        assert taken, f'{self.name} has no {language} block with {part!r}'
        TAKEN.setdefault(self.name, set()).update(
            (language, text) for text in taken)
        return taken

    def write_configs(self) -> List[str]:
        """Write the configs that a sentence before them names."""
        found = re.findall(r'`(\w+\.py)`:\n\n```python\n(.*?)^```', self.text,
                           re.M | re.S)
        for name, text in found:
            Path(name).write_text(text)
        return [name for name, _ in found]

    def commands(self) -> List[str]:
        """The lines of all shell blocks."""
        return [
            line for language, text in self.blocks() if language == 'bash'
            for line in lines_of(text)
        ]

    def inline_commands(self) -> List[str]:
        """Commands within a sentence or a table."""
        return re.findall(r'`((?:python|bash|mim|pip|greenmim) [^`]+)`',
                          self.text)

    def anchors(self) -> Set[str]:
        """Names of the headings, as GitHub and MkDocs make them."""
        titles = re.findall(r'^#+ (.+)$', self.text, re.M)
        return {
            re.sub(r'[^\w -]', '', title).strip().lower().replace(' ', '-')
            for title in titles
        }

    def links(self) -> List[str]:
        """Targets of links and pictures, without those elsewhere."""
        targets = re.findall(r'\]\(([^)]+)\)', self.text)
        return [t for t in targets if not re.match(r'https?://', t)]


def lines_of(block: str) -> List[str]:
    """The commands of a shell block, one a line, without comments."""
    return [
        re.sub(r'\s+', ' ', re.sub(r'(^|\s)#.*', '', line)).strip()
        for line in block.replace('\\\n', ' ').splitlines()
        if re.sub(r'(^|\s)#.*', '', line).strip()
    ]


def flags_of(*sources: Path) -> Set[str]:
    """The options that argument parsers in Python files define."""
    text = ''.join(source.read_text('utf-8') for source in sources)
    return set(re.findall(r"'(--[a-z-]+)'", text))


def train_flags(package: str) -> Set[str]:
    """The options of a package's train.py; empty if it is not installed."""
    if package == 'greenmim':
        return tool_flags(CHECKOUT / 'tools' / 'train.py')
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        return set()
    return flags_of(Path(spec.origin).parent / '.mim' / 'tools' / 'train.py')


def tool_flags(script: Path) -> Set[str]:
    """The options of a tool, and of the modules here that it imports."""
    if script.suffix == '.sh':
        train = 'train' in script.name or script.name == 'quickstart.sh'
        tool = CHECKOUT / 'tools' / ('train.py' if train else 'test.py')
        return tool_flags(tool) | {'--work-dir'}
    sources = [script]
    text = script.read_text('utf-8')
    main = re.search(r'^from ([\w.]+) import main$', text, re.M)
    if main:  # a thin tool
        return tool_flags(CHECKOUT / f'{main[1].replace(".", "/")}.py')
    for name in re.findall(r'^ *from ([\w.]+) import', text, re.M):
        file = name.replace('.', '/') + '.py'
        sources += filter(Path.is_file,
                          (script.parent / file, CHECKOUT / file))
    return flags_of(*sources)


def command_flags(name: str) -> Set[str]:
    """The options of a sub-command of ``greenmim``."""
    module, _, function = COMMANDS[name][1].partition(':')
    if function == 'main':
        file = CHECKOUT / 'greenmim' / f'{module.replace(".", "/")}.py'
        return tool_flags(file)
    run = getattr(importlib.import_module(f'greenmim.{module}'), function)
    return {
        '--' + argument.replace('_', '-')
        for argument in inspect.signature(run).parameters
    }


def short_run(iterations: int, by_epoch: bool = False) -> List[str]:
    """The options that make a training as short as a test has to be."""
    length = 'max_epochs' if by_epoch else 'max_iters'
    return [
        f'train_cfg.{length}={iterations}',
        f'default_hooks.checkpoint.interval={iterations}',
        'param_scheduler.0.end=1', 'param_scheduler.1.begin=1',
        'train_dataloader.batch_size=4', 'train_dataloader.num_workers=0',
        'train_dataloader.persistent_workers=False'
    ]


def run_line(run_tool: Callable, line: str, *options: str) -> None:
    """Run a documented command of Python in this process.

    Args:
        run_tool (Callable): The fixture.
        line (str): The command.
        options (str): Added to its ``--cfg-options``.
    """
    words = shlex.split(line)
    assert words[0] == 'python', line
    if options:
        if '--cfg-options' not in words:
            words.append('--cfg-options')
        # Runs of one process that share a name share their history.
        words += [*options, f'experiment_name={uuid.uuid4().hex}']
    try:
        run_tool(*words[1:])
    except SystemExit as end:
        assert not end.code, f'{line}: {end.code}'


def check_command(line: str) -> None:
    """A command names scripts, configs, options and extras that exist.

    Lines of the shell itself, and of programs that are not part of the
    project, are left to the test of their page.
    """
    words = shlex.split(line)
    while words and re.match(r'[A-Z_]+=', words[0]):
        del words[0]
    if words[:1] == ['srun']:
        del words[0]
    for word in words:
        if word.startswith(('configs/', 'tools/', 'tests/')):
            assert (CHECKOUT / word).exists(), word
    flags = {word for word in words if word.startswith('--')}
    if words[:2] == ['pip', 'install']:
        setup = ConfigParser()
        setup.read(CHECKOUT / 'setup.cfg')
        for extras in re.findall(r'\[([\w,-]+)\]', line):
            known = set(setup['options.extras_require'])
            assert set(extras.split(',')) <= known, extras
    elif words[:2] == ['mim', 'train']:
        package, config = (words + ['CONFIG'])[2:4]
        package = dict(mmsegmentation='mmseg').get(package, package)
        known = train_flags(package)
        assert not known or flags <= MIM_FLAGS | known, flags - known
        if config.endswith('.py') and '/' not in config:
            assert len(list((CHECKOUT / 'configs').rglob(config))) == 1
    elif words[0] == 'greenmim' and words[1] != 'COMMAND':
        known = command_flags(words[1])
        assert flags <= known, flags - known
    elif words[0] in ('bash', 'python') and not words[1].startswith('-'):
        script = CHECKOUT / words[1]
        assert script.is_file(), words[1]
        assert flags <= tool_flags(script), flags - tool_flags(script)
    elif words[:2] == ['python', '-m']:
        name = words[2]
        assert name == 'venv' or find_spec(name) is not None, name
