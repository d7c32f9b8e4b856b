# Copyright (c) greenmim authors. All rights reserved.
"""The report of a run: its measurements on one page, as text and figure."""
import json
from pathlib import Path
from typing import Any, Dict, List, Sequence, Tuple

from mmengine.dist import master_only
from mmengine.runner import Runner

from greenmim.registry import HOOKS
from ..screen import show
from .run_meter_hook import RunMeterHook

BLUE, ORANGE, GREY = '#3b6fb6', '#d98032', '#b9b9b9'


@HOOKS.register_module()
class RunReportHook(RunMeterHook):
    """Logs what a run costs while it runs, and reports it at the end.

    ``report.md``, ``report.json`` and ``report.png`` in the work folder hold
    the measurements of the entire run (see :class:`RunMeterHook` for them and
    the arguments), its energy, and the time that the backbone would need for
    all tokens, measured at the end. The report of a resumed run covers all of
    it, without what was computed after the checkpoint and lost.
    """

    @master_only
    def after_train(self, runner: Runner) -> None:
        """Write the report."""
        if not self.seconds:
            return
        figures = self.figures(runner)
        figures.update(self.dense_figures(runner, figures))
        last = self.losses[-10:]
        info = runner.message_hub.runtime_info
        for name in ('verdict', 'verdict_images', 'reconstruction'):
            figures[name] = info.get(name)
        figures.update(
            first_loss=self.losses[0] if self.losses else None,
            last_loss=sum(last) / len(last) if last else None)
        folder = Path(runner.work_dir)
        text = json.dumps(figures, indent=1)
        (folder / 'report.json').write_text(text + '\n')
        (folder / 'report.md').write_text(report_text(figures))
        draw_report(figures, self.losses, self.seconds, folder / 'report.png')
        show(runner.logger, f'Report of the run: {folder / "report.md"}')


def report_text(figures: Dict[str, Any]) -> str:
    """The report in Markdown, of the content of ``report.json``."""
    rows = [f'| {name} | {value} |' for name, value in _rows(figures)]
    return '\n'.join([
        '# Report of the run', '', '| | |', '|---|---|', *rows, '',
        '![Loss, speed, time and the dense equivalent](report.png)', '',
        *_reconstruction(figures)
    ])


def _reconstruction(figures: Dict[str, Any]) -> List[str]:
    """What :class:`greenmim.engine.LearningPictureHook` found, if it ran."""
    found = figures.get('reconstruction')
    if not found:
        return []
    picture = '![Predictions of held-out images during the run](learning.png)'
    return [found['sentence'], '', picture, '']


def _rows(figures: Dict[str, Any]) -> List[Tuple[str, str]]:

    def show(name: str, pattern: str = '{:.3g}', scale: float = 1.) -> str:
        value = figures.get(name)
        return ('not measured' if value is None else pattern.format(value *
                                                                    scale))

    planning = show('plan_share', '{:.1%}')
    if figures.get('planned_by_workers'):
        planning = (f'done by the data-loading workers, '
                    f'{show("plan_seconds", "{:.2g}", 1000.)} ms a batch')
    verdict = figures.get('verdict') or 'not measured'
    if figures.get('verdict_images'):
        verdict += f', by {figures["verdict_images"]}'
    first = figures.get('first_iteration')
    resumed = [('measured from iteration', str(first + 1))] if first else []
    return [
        ('config', figures['config'] or 'not from a file'),
        ('iterations, images',
         f'{figures["iterations"]}, {figures["images"]}'),
        *resumed,
        ('hours', show('hours')),
        ('seconds of a step', show('step_seconds')),
        ('images per second', show('images_per_second')),
        ('peak memory, GiB', show('peak_memory', scale=2**-30)),
        ('share of the time waiting for data', show('data_share', '{:.1%}')),
        ('planning masks', planning),
        ('computing', show('compute_share', '{:.1%}')),
        ('group slots that hold a token', show('fill_rate', '{:.1%}')),
        ('loss, first and mean of the last ten',
         f'{show("first_loss", "{:.4f}")}, {show("last_loss", "{:.4f}")}'),
        ('is it learning?', verdict),
        ('steps skipped since they were not finite',
         show('steps_left_out', '{:.0f}')),
        ('rollbacks to a checkpoint', show('went_back', '{:.0f}')),
        ('energy, kWh', show('kwh')),
        ('kg CO2e', show('kg_co2e')),
        ('source of the energy', figures['energy_source'] or 'none'),
        ('backbone on visible tokens, s', show('backbone_seconds')),
        ('backbone on all tokens, s', show('dense_backbone_seconds')),
        ('hours with all tokens in the backbone', show('dense_hours')),
    ]


def draw_report(figures: Dict[str, Any], losses: Sequence[float],
                seconds: Sequence[float], path: Path) -> None:
    """The report as a PNG file, with loss and seconds of every iteration."""
    from matplotlib.figure import Figure
    figure = Figure(figsize=(11, 7), layout='constrained')
    figure.suptitle(_title(figures))
    axes = figure.subplots(2, 2)
    first = figures.get('first_iteration', 0)
    _draw_curve(axes[0, 0], losses, 'loss', first)
    images = figures['images'] / figures['iterations']
    _draw_curve(axes[0, 1], [images / s for s in seconds], 'images/s', first)
    axes[0, 1].set_ylim(bottom=0)
    _draw_shares(axes[1, 0], figures)
    _draw_dense_equivalent(axes[1, 1], figures)
    figure.savefig(path, dpi=100)


def _title(figures: Dict[str, Any]) -> str:
    parts = [
        f'{figures["iterations"]} iterations, {figures["images"]} images',
        _duration(figures['hours'])
    ]
    if figures['peak_memory'] is not None:
        parts.append(f'{figures["peak_memory"] / 2**30:.2f} GiB')
    if 'kwh' in figures:
        parts.append(f'{figures["kwh"]:.3g} kWh, '
                     f'{figures["kg_co2e"]:.3g} kg CO$_2$e')
    return '\n'.join([figures['config'], '  ·  '.join(parts)]).strip()


def _draw_curve(ax: Any, values: Sequence[float], name: str,
                first: int) -> None:
    """Every value, and their mean over a fiftieth of the run."""
    width = max(len(values) // 50, 1)
    means = [
        sum(values[i:i + width]) / len(values[i:i + width])
        for i in range(0, len(values), width)
    ]
    middles = [
        first + 1 + i * width + (width - 1) / 2 for i in range(len(means))
    ]
    ax.plot(
        range(first + 1, first + len(values) + 1),
        values,
        color=GREY,
        linewidth=0.8)
    ax.plot(middles, means, color=BLUE, linewidth=1.8)
    ax.set_xlabel('iteration')
    ax.set_ylabel(name)
    ax.grid(alpha=0.3)


def _draw_shares(ax: Any, figures: Dict[str, Any]) -> None:
    shares = {
        'computing': figures['compute_share'],
        'planning masks': figures['plan_share'],
        'waiting for data': figures['data_share'],
    }
    shares['measuring, logging, saving'] = max(1 - sum(shares.values()), 0)
    names = list(shares)[::-1]
    bars = ax.barh(
        names, [100 * shares[name] for name in names],
        color=[GREY, ORANGE, ORANGE, BLUE])
    labels = [f'{shares[name]:.1%}' for name in names]
    if figures['planned_by_workers']:
        labels[names.index('planning masks')] = 'in the data-loading workers'
    ax.bar_label(bars, labels, padding=4)
    ax.set_xlim(0, 115)
    ax.set_xlabel('% of the time')


def _draw_dense_equivalent(ax: Any, figures: Dict[str, Any]) -> None:
    hours = {'this run': figures['hours']}
    if 'dense_hours' in figures:
        hours['with all tokens\nin the backbone'] = figures['dense_hours']
    names = list(hours)[::-1]
    unit, scale = ('hours', 1) if hours['this run'] >= 1 else ('minutes', 60)
    bars = ax.barh(
        names, [scale * hours[name] for name in names],
        color=[GREY, BLUE][-len(names):])
    ax.bar_label(bars, [_duration(hours[name]) for name in names], padding=4)
    ax.set_xlim(0, 1.3 * scale * max(hours.values()))
    ax.set_ylim(-0.8, len(names) - 0.2)
    ax.set_xlabel(unit)
    if len(names) == 1:
        ax.set_title('the dense equivalent was not measured', fontsize=10)


def _duration(hours: float) -> str:
    if hours >= 1:
        return f'{hours:.1f} h'
    return f'{hours * 60:.1f} min' if hours >= 1 / 60 else (
        f'{hours * 3600:.1f} s')
