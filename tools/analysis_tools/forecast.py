# Copyright (c) greenmim authors. All rights reserved.
"""What a run will take: hours, memory, batch size, energy.

    python tools/analysis_tools/forecast.py CONFIG [--cfg-options ...]

starts the run as tools/train.py does, stops after some steps, and
extrapolates. It measures data loading, planning and arithmetic together, on
this machine while nothing else runs on it. Writing checkpoints and the start
of the run are left out. Beside it stands the same backbone computing all
tokens, forward and backward. How many images fit follows from how peak memory
grows in steps on four times as many, or fewer where these would not fit.

    python tools/analysis_tools/forecast.py FORECAST.json \\
        --check work_dirs/RUN/report.json

compares what --json has written with the report of the run that followed.
"""
import argparse
import json
import sys
from pathlib import Path

import torch
from mmengine.config import Config, DictAction

from greenmim.benchmarking.forecast import TOLERANCE, check, forecast, show
from greenmim.benchmarking.results import environment, write_json
from greenmim.engine.cost.energy import GRAMS_PER_KWH


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        'config',
        help='the path of the config '
        'file, or of a forecast in JSON to check')
    parser.add_argument(
        '--steps', type=int, default=20, help='steps that are measured')
    parser.add_argument(
        '--warmup', type=int, default=5, help='steps before them')
    parser.add_argument(
        '--watts',
        type=float,
        help='power of the machine, where it cannot be measured')
    parser.add_argument(
        '--grams-per-kwh',
        type=float,
        default=GRAMS_PER_KWH,
        help='CO2e of your electricity (default: %(default)g, the world '
        'average of 2022)')
    parser.add_argument('--json', help='write the figures to this file')
    parser.add_argument(
        '--check',
        metavar='REPORT',
        help='compare with the report.json of the run, and fail where the '
        f'forecast was wrong by more than {TOLERANCE:.0%}')
    parser.add_argument(
        '--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    if args.config.endswith('.json'):
        figures = json.loads(Path(args.config).read_text())
    else:
        try:
            figures = forecast(
                Config.fromfile(args.config), args.cfg_options, args.warmup,
                args.steps, args.watts, args.grams_per_kwh)
        except ValueError as error:
            sys.exit(f'forecast: {error}')
        show(figures)
    if args.json:
        device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
        write_json(
            dict(figures, environment=environment(device)), Path(args.json))
        print(f'written: {args.json}')
    if args.check and not check(figures,
                                json.loads(Path(args.check).read_text())):
        sys.exit('forecast: wrong by more than '
                 f'{TOLERANCE:.0%}; was the machine busy with other things?')


if __name__ == '__main__':
    main()
