# Copyright (c) greenmim authors. All rights reserved.
"""Result files of the benchmarks, and their tables in the documents."""
import json
import re
from pathlib import Path
from typing import Dict, List

from .results import origin, table

NOT_MEASURED = 'Not measured yet.'
MARK = 'benchmark'  # of the generated part of a document
STEP_COLUMNS = ('contender', 'step s (min - max)', 'images/s', 'peak MiB',
                'faster', 'of the limit', 'faster, with AdamW', 'plan ms',
                'fill')

# Of Swin-B with window 7 against SimMIM on a GPU, in bf16 at 224 px: batch
# size -> times as many images a second, share of the peak memory.
GPU_GOALS = {256: (3.5, 0.30), 64: (3., 0.30)}

# A result, with its file's environment under `environment`.
Results = List[dict]


def load(folder: Path) -> Dict[str, Results]:
    """Read all result files, by the first word of their names.

    Files are ordered by name, numbers in it by value.
    """
    results: Dict[str, Results] = {}
    for file in sorted(folder.glob('*.json'), key=natural_key):
        report = json.loads(file.read_text('utf-8'))
        results.setdefault(file.stem.split('_')[0], []).extend(
            dict(result, environment=report['environment'])
            for result in report['results'])
    return results


def natural_key(file: Path) -> List[tuple]:
    parts = re.findall(r'(\d*)(\D*)', file.stem)
    return [(int(number or 0), text) for number, text in parts]


def model_name(result: dict) -> str:
    """Of ``greenmim_swin-base-w7_8xb256-...`` the part ``swin-base-w7``."""
    return result['config'].removeprefix('greenmim_').split('_')[0]


def image_name(result: dict) -> str:
    height, width = result['image_size']
    return f'{height} px' if height == width else f'{height}x{width} px'


def device_name(result: dict) -> str:
    return {'cpu': 'CPU', 'cuda': 'GPU'}[result['environment']['device']]


def setting(result: dict) -> str:
    parts = [
        model_name(result),
        image_name(result), f'{result["mask_ratio"]:.0%} masked',
        f'batch {result["batch_size"]}', f'{device_name(result)} '
        f'{result["dtype"]}'
    ]
    if result['attention'] != 'auto':
        parts.append(f'{result["attention"]} attention')
    words = dict(
        compile='compiled',
        plan_ahead='planned ahead',
        cudnn_benchmark='cuDNN\'s fastest')
    parts += [word for key, word in words.items() if result.get(key)]
    return ', '.join(parts)


def origins(results: Results) -> str:
    """Where and when results were measured, in a sentence each."""
    sentences = [origin(result['environment']) for result in results]
    return '; '.join(dict.fromkeys(sentences)) + '.'


def row_of(result: dict, name: str) -> dict:
    """The row of a contender, the first whose name starts so."""
    return next(row for row in result['rows'] if row['name'].startswith(name))


def with_breakdown(results: Results) -> Results:
    return [
        result for result in results
        if any('breakdown' in row for row in result['rows'])
    ]


def readme_block(results: Dict[str, Results]) -> str:
    """One table and one picture."""
    steps = [
        result for result in results.get('step', [])
        if result.get('reference') == 'simmim'
    ]
    if not steps:
        return NOT_MEASURED
    rows = []
    for result in steps:
        green, dense = row_of(result, 'greenmim'), row_of(result, 'simmim')
        rows.append([
            setting(result), f'{dense["seconds"]:.3f} s',
            f'{green["seconds"]:.3f} s', f'**{green["ratio"]:.2f}x**',
            f'{result["limit"]:.2f}x', f'{memory_share(result):.2f}x'
        ])
    if not any(device_name(result) == 'GPU' for result in steps):
        rows.append(['on a GPU', 'not measured', '', '', '', ''])
    parts = [
        'A training step (zero_grad, forward, loss, backward) against that of '
        'MMPretrain\'s SimMIM, which computes all\ntokens of the same '
        'backbone. The limit is what the share of visible tokens allows; '
        'memory is the peak of a step.',
        table(['', 'SimMIM', 'GreenMIM', 'faster', 'limit', 'memory'], rows),
        'Measured on ' + origins(steps)
    ]
    if results.get('ratio'):
        parts.append('![Speed-up over SimMIM against the mask ratio]'
                     '(docs/images/speedup.svg)')
    parts.append('How this was measured, and more: [docs/benchmarks.md]'
                 '(docs/benchmarks.md).')
    return '\n\n'.join(parts)


def docs_block(results: Dict[str, Results]) -> str:
    """Sections of a table, a picture, and where it was measured."""
    sections = [
        ('step', 'Training step', steps_table,
         '![Where the time of a step goes](images/breakdown.svg)'),
        ('ratio', 'Mask ratio', ratio_table,
         '![Speed-up over SimMIM against the mask ratio](images/speedup.svg)'),
        ('size', 'Image size', size_table,
         '![Cost of a visible token against the image size]'
         '(images/image_size.svg)'),
        ('memory', 'Memory against time', memory_table,
         '![Memory against time](images/memory.svg)'),
        ('grouping', 'Grouping', grouping_table, ''),
    ]
    parts = ['### On a GPU', gpu_table(results.get('step', []))]
    for purpose, title, make_table, picture in sections:
        chosen = results.get(purpose, [])
        parts.append(f'### {title}')
        if not chosen:
            parts.append(NOT_MEASURED)
            continue
        parts.append(make_table(chosen))
        if picture and (purpose != 'step' or with_breakdown(chosen)):
            parts.append(picture)
        parts.append(f'Measured on {origins(chosen)}')
    return '\n\n'.join(parts)


def memory_share(result: dict) -> float:
    """Peak memory of GreenMIM as a share of SimMIM's."""
    green, dense = row_of(result, 'greenmim'), row_of(result, 'simmim')
    return green['peak_memory'] / dense['peak_memory']


def gpu_table(results: Results) -> str:
    """Images/s and memory on a GPU, beside the goals."""
    rows = []
    nothing = ['a GPU', *['not measured'] * 4]
    for batch_size, goals in GPU_GOALS.items():
        setting = ('swin-base-w7', [224, 224], 0.75, batch_size, 'bf16', 'GPU',
                   'simmim')
        measured = [
            result for result in results
            if (model_name(result), list(result['image_size']),
                result['mask_ratio'], result['batch_size'], result['dtype'],
                device_name(result), result.get('reference')) == setting
        ]
        cells = [[
            result['environment']['hardware'],
            *(f'{row_of(result, name)["images_per_second"]:.0f}'
              for name in ('simmim', 'greenmim')),
            f'{row_of(result, "greenmim")["ratio"]:.2f}x',
            f'{memory_share(result):.2f}x'
        ] for result in measured]
        for where, *speeds, memory in cells or [nothing]:
            rows.append([
                f'batch {batch_size}, {where}', *speeds, f'>= {goals[0]}x',
                memory, f'<= {goals[1]:.2f}x'
            ])
    return ('Swin-B, window 7, 224 px, 75% masked, bf16.\n\n' + table([
        '', 'SimMIM images/s', 'GreenMIM images/s', 'faster', 'goal', 'memory',
        'goal'
    ], rows))


def steps_table(results: Results) -> str:
    rows = [[setting(result), *row] for result in results
            for row in step_cells(result)]
    return table(['', *STEP_COLUMNS], rows)


def step_cells(result: dict) -> List[List[str]]:
    """The cells below ``STEP_COLUMNS``, a row for each contender."""
    rows = []
    for row in result['rows']:
        low, high = min(row['all_seconds']), max(row['all_seconds'])

        def cell(key: str, pattern: str, scale: float = 1.) -> str:
            return pattern.format(row[key] * scale) if key in row else ''

        rows.append([
            row['name'], f'{row["seconds"]:.3f} ({low:.3f} - {high:.3f})',
            f'{row["images_per_second"]:.3g}',
            f'{row["peak_memory"] / 2**20:.0f}',
            cell('ratio', '{:.2f}x'),
            cell('share_of_limit', '{:.1%}'),
            whole_step_ratio(result, row),
            cell('planning_seconds', '{:.2f}', 1e3),
            cell('fill_rate', '{:.1%}')
        ])
    return rows


def whole_step_ratio(result: dict, row: dict) -> str:
    """How much faster a step is whose optimizer is counted."""
    if 'optimizer_seconds' not in row or 'reference' not in result:
        return ''
    reference = row_of(result, result['reference'])
    seconds = [r['seconds'] + r['optimizer_seconds'] for r in (reference, row)]
    return f'{seconds[0] / seconds[1]:.2f}x'


def ratio_table(results: Results) -> str:
    rows = [[
        setting(result),
        f'{row_of(result, "greenmim")["ratio"]:.2f}x',
        f'{result["limit"]:.2f}x',
    ] for result in results]
    return table(['', 'faster than SimMIM', 'limit'], rows)


def size_table(results: Results) -> str:
    rows = [[
        setting(result),
        str(result['visible_units']),
        f'{token_microseconds(result):.1f}',
    ] for result in results]
    return table(['', 'visible units', 'µs per visible token'], rows)


def token_microseconds(result: dict) -> float:
    """Microseconds of a step per visible token of the first stage."""
    tokens = result['batch_size'] * result['visible_units'] * 8 * 8
    return row_of(result, 'greenmim')['seconds'] / tokens * 1e6


def memory_table(results: Results) -> str:
    rows = [[
        setting(result), row['name'], 'yes' if result['with_cp'] else 'no',
        f'{row["seconds"]:.3f}', f'{row["peak_memory"] / 2**20:.0f}'
    ] for result in results for row in result['rows']]
    return table(['', 'contender', 'with_cp', 'step s', 'peak MiB'], rows)


def grouping_table(results: Results) -> str:
    rows = [[
        image_name(result),
        str(result['window']),
        str(result['num_masks']), f'{result["mask_ratio"]:.0%}',
        f'{result["planning_seconds"] * 1e3:.2f} '
        f'({result["slowest_seconds"] * 1e3:.2f})',
        f'{result["index_seconds"] * 1e3:.2f}', f'{result["fill_rate"]:.1%}',
        f'{result["cost_above_bound"]:.2%}'
    ] for result in results]
    return table([
        'image', 'window', 'masks', 'masked', 'plan ms (slowest)',
        'indices ms', 'fill', 'cost above the bound'
    ], rows)
