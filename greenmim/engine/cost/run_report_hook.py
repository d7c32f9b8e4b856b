# Copyright (c) greenmim authors. All rights reserved.
import json
from pathlib import Path

from mmengine.dist import master_only
from mmengine.runner import Runner

from greenmim.registry import HOOKS
from .report import draw_report, report_text
from .run_meter_hook import RunMeterHook


@HOOKS.register_module()
class RunReportHook(RunMeterHook):
    """Logs what a run costs while it runs, and reports it at the end.

    ``report.md``, ``report.json`` and ``report.png`` in the work folder hold
    the measurements of the entire run (see :class:`RunMeterHook` for them and
    the arguments), its energy, and the time that the backbone would need for
    all tokens, measured at the end. The report of a resumed run starts where
    it was resumed.
    """

    @master_only
    def after_train(self, runner: Runner) -> None:
        """Write the report."""
        if not self.seconds:
            return
        figures = self.figures(runner)
        figures.update(self.dense_figures(runner, figures))
        last = self.losses[-10:]
        figures.update(
            first_loss=self.losses[0] if self.losses else None,
            last_loss=sum(last) / len(last) if last else None)
        folder = Path(runner.work_dir)
        text = json.dumps(figures, indent=1)
        (folder / 'report.json').write_text(text + '\n')
        (folder / 'report.md').write_text(report_text(figures))
        draw_report(figures, self.losses, self.seconds, folder / 'report.png')
        runner.logger.info(f'Report of the run: {folder / "report.md"}')
