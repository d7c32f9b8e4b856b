# Copyright (c) greenmim authors. All rights reserved.
"""Every page: each block of code has a test, each name and link exists."""
import importlib
import inspect
import pkgutil
import re

import pytest
import yaml

import greenmim
from tests.conftest import CHECKOUT
from tests.documents import NAMES, TAKEN, Page, check_command, lines_of

TESTS = CHECKOUT / 'tests'
# Commands that tests of the tools run on small models, or that one machine
# without a GPU cannot run as they stand: a pattern, and the test.
ELSEWHERE = {
    r'bash tools/quickstart\.sh( \S+)*':
    'test_tools/test_quickstart.py::test_own_folder_from_start_to_end',
    r'source \.venv/bin/activate':
    'test_tools/test_quickstart.py::'
    'test_a_new_environment_has_to_be_activated',
    # This is it.
    r'bash tools/run_tests\.sh':
    'test_documents.py::test_every_block_is_claimed_by_a_test',
    r'pip install -e (\.|"\.\[(openmmlab|onedl)\]")':
    'test_packaging.py::test_no_install_pulls_packages_over_others',
    # They compile for half an hour.
    r'(MMCV_WITH_OPS=1 )?pip install (torch|--no-build-isolation) .*'
    r'|pip install -e "\.\[(onedl-)?downstream\]"':
    'test_packaging.py::test_import_warns_of_a_sibling_that_cannot_work',
    r'bash tools/run_stack\.sh newest':
    'test_stacks.py::test_table_is_that_of_the_results',
    r'docker (build|run) .*':
    'test_container.py::test_steps_make_an_environment',
    r'python -m greenmim':
    'test_doctor.py::test_a_sound_environment',
    # Launchers: the same lines with a small config, two processes, and a
    # Slurm of one node.
    r'python tools/train\.py CONFIG --work-dir D'
    r'|mim train (mmpretrain|mmselfsup) CONFIG --work-dir D'
    r'|mim train greenmim \S+\.py --work-dir D'
    r'|mim train greenmim CONFIG --launcher pytorch --gpus 8 --work-dir D'
    r'|bash tools/dist_train\.sh CONFIG 8( --work-dir D)?':
    'test_tools/test_launchers.py::test_losses_over_all_launchers',
    r'(GPUS\S* GPUS\S* )?bash tools/slurm_train\.sh .*'
    r'|mim train mmselfsup CONFIG --work-dir D --launcher .*'
    r'|mim train greenmim CONFIG --launcher slurm .*':
    'test_tools/test_launchers.py::test_command_of_mim',
    r'NNODES=2 NODE_RANK=\d MASTER_ADDR=\S+ PORT=\d+ bash tools/'
    r'dist_train\.sh .*':
    'test_clusters_page.py::test_several_machines',
    r'sbatch .* tools/slurm_job\.sh .*':
    'test_tools/test_slurm.py::test_a_batch_job_is_requeued_and_resumes',
    r'python tools/misc/channel_statistics\.py data/images':
    'test_data_page.py::test_statistics_of_images',
    r'bash tools/dist_train\.sh .* model_wrapper_cfg\.type=\S+':
    'test_tools/test_fully_sharded.py::test_losses_are_those_of_one_process',
    # Placeholders for files of the reader.
    r'python tools/model_converters/import_checkpoint\.py CKPT --from \S+':
    'test_tools/test_import_checkpoint.py::test_simmim',
    r'python tools/visualization/reconstruct\.py CONFIG CKPT IMAGES\.\.\. .*':
    'test_tools/test_reconstruct.py::test_page',
    r'python tools/train\.py CONFIG --work-dir D --cfg-options '
    r'.*channels=1 .*':
    'test_openmmlab_page.py::test_options_for_grey_images_fit_together',
    # They take hours, or minutes on every core.
    r'python tools/train\.py configs/greenmim_swin-tiny-w7_8xb256-amp-coslr-'
    r'200e_in1k\.py --work-dir work_dirs/mine --auto-scale-lr .*':
    'test_openmmlab_page.py::test_from_top_to_bottom',
    r'python tools/benchmarks/compare_methods\.py FOLDER .*':
    'test_tools/test_comparisons.py::test_with_labels',
    r'python tools/benchmarks/compare_with_scratch\.py FOLDER .*':
    'test_tools/test_comparisons.py::test_from_archive_to_table',
    r'python tools/benchmarks/compare_detectors\.py FOLDER .*':
    'test_apis/test_compare_detectors.py::test_from_folder_to_table',
    r'greenmim compare work_dirs/mine FOLDER .*':
    'test_apis/test_compare.py::test_the_weights_of_a_run',
    r'mim search greenmim --model swin':
    'test_packaging.py::test_mim_search_prints_the_models',
    r'mim run greenmim (forecast|reconstruct) .*|mim download greenmim .*':
    'test_packaging.py::test_from_a_wheel_in_a_folder_with_a_blank',
    # The table of the page itself is another test's.
    r'python tools/benchmarks/accuracy_over_compute\.py .*':
    'test_tools/test_comparisons.py::test_over_compute',
    r'python tools/analysis_tools/benchmark(_grouping)?\.py.*':
    'test_tools/test_benchmarks.py::test_step',
    r'bash benchmarks/run\.sh my-machine':
    'test_tools/test_benchmarks.py::test_list_of_measurements',
    r'python tools/analysis_tools/gpu_report\.py --minutes 8':
    'test_tools/test_gpu_report.py::test_from_the_tool_to_the_tables',
    r'python tools/analysis_tools/plot_benchmarks\.py':
    'test_tools/test_benchmarks.py::test_plots_and_tables',
    # How to set up a checkout and a second environment: run_tests.sh does.
    r'python -m venv .*|pip install -c .*|pre-commit install'
    r'|pip install torch==.*|MMCV_WITH_OPS=1 pip wheel .*'
    r'|export GREENMIM_MMCV_WHEEL=.*':
    'test_packaging.py::test_import_warns_of_a_sibling_that_cannot_work',
}


@pytest.fixture(scope='module', autouse=True)
def modules():
    """The tests of the pages, which take their blocks at the import."""
    for path in TESTS.glob('test_*.py'):
        if re.search(r"\bPage\(\s*'", path.read_text('utf-8')):
            importlib.import_module(f'tests.{path.stem}')


def named_test_exists(name):
    path, function = name.split('::')
    source = (TESTS / path).read_text('utf-8')
    return re.search(rf'^def {function}\(', source, re.M) is not None


@pytest.mark.parametrize('name', NAMES)
def test_every_block_is_claimed_by_a_test(name):
    page = Page(name)
    taken = TAKEN.get(name, set())
    left = []
    for language, text in page.blocks():
        if language in ('text', 'bibtex') or (language, text) in taken:
            continue
        assert language in ('bash', 'python'), language
        if language == 'python':
            left.append(text)
            continue
        left += [
            line for line in lines_of(text)
            if not any(re.fullmatch(p, line) for p in ELSEWHERE)
        ]
    assert not left, (
        f'no test runs these parts of {name}; take them in the test of the '
        f'page (see tests/documents.py): {left}')


def test_no_claim_is_stale():
    lines = [line for name in NAMES for line in Page(name).commands()]
    for pattern, test in ELSEWHERE.items():
        assert any(re.fullmatch(pattern, line) for line in lines), pattern
        assert named_test_exists(test), test


def test_a_new_block_would_be_noticed(monkeypatch, tmp_path):
    page = tmp_path / 'new.md'
    page.write_text('```bash\npython tools/unheard_of.py\n```\n')
    monkeypatch.setattr('tests.documents.CHECKOUT', tmp_path)
    with pytest.raises(AssertionError, match='no test runs'):
        test_every_block_is_claimed_by_a_test('new.md')


@pytest.mark.parametrize('name', NAMES)
def test_commands_name_what_exists(name):
    page = Page(name)
    for line in page.commands() + page.inline_commands():
        try:
            check_command(line)
        except (AssertionError, ValueError) as error:
            pytest.fail(f'{name}: `{line}`: {error}')


@pytest.mark.parametrize('line', [
    'python tools/no_such_tool.py', 'python tools/train.py --no-such-flag',
    'bash tools/dist_train.sh configs/no_such_config.py 8',
    'pip install -e ".[no_such_extra]"', 'mim train greenmim no_such.py'
])
def test_a_wrong_command_would_be_noticed(line):
    with pytest.raises(AssertionError):
        check_command(line)


@pytest.mark.parametrize('name', NAMES)
def test_links_resolve(name):
    page = Page(name)
    for link in page.links():
        target, _, anchor = link.partition('#')
        path = page.path.parent / target if target else page.path
        assert path.exists(), link
        if anchor:
            relative = path.resolve().relative_to(CHECKOUT).as_posix()
            assert anchor in Page(relative).anchors(), link


@pytest.mark.parametrize('name', NAMES)
def test_named_files_exist(name):
    """Paths in backquotes exist, and so do tests that are named."""
    text = Page(name).text
    pattern = r'`((?:configs|greenmim|tools|tests|benchmarks|docs)/[\w./-]+)'
    for path in re.findall(pattern, text):
        found = path in ELSEWHERE_NAMED or (CHECKOUT / path).exists()
        assert found, path
    for test in re.findall(r'`tests/([\w./-]+::\w+)`', text):
        assert named_test_exists(test), test


# Files that a page tells the reader to write.
ELSEWHERE_NAMED = {
    'greenmim/models/backbones/mynet.py', 'tests/backbones/mynet.py'
}


def test_every_page_is_in_the_site():
    site = yaml.safe_load((CHECKOUT / 'mkdocs.yml').read_text('utf-8'))

    def pages(nav):
        for entry in nav:
            (target, ) = entry.values()
            yield from pages(target) if isinstance(target, list) else [target]

    in_site = sorted(f'docs/{page}' for page in pages(site['nav']))
    assert in_site == [name for name in NAMES if name.startswith('docs/')]
    index = Page('docs/index.md').links()
    for page in in_site:
        page = page[len('docs/'):]
        assert page == 'index.md' or page in index or 'api/' in page, page


def exported():
    """(package, name, object) of every name in an ``__all__``."""
    packages = [
        module.name
        for module in pkgutil.walk_packages(greenmim.__path__, 'greenmim.')
        if module.ispkg
    ]
    for package in packages:
        module = importlib.import_module(package)
        for name in getattr(module, '__all__', ()):
            yield package, name, getattr(module, name)


def documented_modules():
    """The modules that an API page shows; of a package, its ``__all__``."""
    return {
        module
        for page in (CHECKOUT / 'docs' / 'api').glob('*.md')
        for module in re.findall(r'^::: (\S+)$', page.read_text('utf-8'), re.M)
    }


def parameters_of(value):
    """Names of a function's or a class's own parameters."""
    function = vars(value).get('__init__') if inspect.isclass(value) else value
    if function is None:
        return []
    return [
        name
        for name, parameter in inspect.signature(function).parameters.items()
        if name not in ('self', 'cls') and parameter.kind not in (
            parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
    ]


def undocumented(value, documentation):
    """The parameters that an ``Args`` section does not explain."""
    documentation = inspect.cleandoc(documentation or '')
    _, _, args = documentation.partition('Args:\n')
    explained = re.findall(r'^ {4}(\w+)\b.*?:', args, re.M)
    return [name for name in parameters_of(value) if name not in explained]


def methods_of(value):
    """Public methods that a class defines and no parent documents."""
    for name, member in vars(value).items():
        if name.startswith('_'):
            continue
        if isinstance(member, (classmethod, staticmethod)):
            member = member.__func__
        if isinstance(member, property):
            member = member.fget
        inherited = any(
            getattr(parent, name, None) is not None
            for parent in value.__mro__[1:])
        if inspect.isfunction(member) and not inherited:
            yield name, member


def members_of(value):
    """Its functions; those that MMCV reads from instances alone, as stored.
    """
    for name in dir(value):
        try:
            member = getattr(value, name)
        except TypeError:
            member = inspect.getattr_static(value, name)
        if callable(member):
            yield name, member


def errors_of(value):
    """(name, error) of what a function or a class's methods raise."""
    functions = [value] if inspect.isfunction(value) else [
        member for name, member in members_of(value)
        if name in ('__init__', '__call__') or not name.startswith('_')
    ]
    for function in map(inspect.unwrap, functions):
        code = getattr(function, '__code__', None)  # not that of a dataclass
        if code is None or f'{CHECKOUT}/greenmim' not in code.co_filename:
            continue
        source = inspect.getsource(function)
        for error in re.findall(r'^\s+raise (\w+)\(', source, re.M):
            yield function, error


def test_every_error_is_documented():
    """By the function, the class, or what they override."""
    problems = []
    for _, name, value in exported():
        if not (inspect.isclass(value) or inspect.isfunction(value)):
            continue
        parents = inspect.getmro(value) if inspect.isclass(value) else [value]
        for function, error in errors_of(value):
            documented = ''.join(
                (parent.__doc__ or '') +
                (getattr(vars(parent).get(function.__name__), '__doc__', None)
                 or '') for parent in parents)
            if error not in documented + (function.__doc__ or ''):
                problems.append(f'{name}.{function.__name__}: {error}')
    assert not problems


@pytest.mark.parametrize('package', sorted({p for p, *_ in exported()}))
def test_every_exported_name_is_documented(package):
    """On an API page, with its arguments."""
    shown, names = documented_modules(), list(exported())
    problems = []
    for owner, name, value in names:
        if owner != package:
            continue
        if not (inspect.isclass(value) or inspect.isfunction(value)):
            continue
        shows = {value.__module__} | {p for p, n, _ in names if n == name}
        if not shows & shown:
            problems.append(f'{name} is on no page of docs/api')
        missing = undocumented(value, value.__doc__)
        if not value.__doc__ or missing:
            problems.append(f'{name} does not explain {missing}')
        if inspect.isclass(value):
            problems += [
                f'{name}.{method} has no docstring'
                for method, function in methods_of(value)
                if not function.__doc__
            ]
    assert not problems
