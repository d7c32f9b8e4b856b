# Copyright (c) greenmim authors. All rights reserved.
import argparse

from mmengine.config import Config

from greenmim.command import run_tool
from greenmim.options import ReadOptions, read_options


def main() -> None:
    parser = argparse.ArgumentParser(
        description='Print a config with all that it inherits')
    parser.add_argument('config', help='the path of the config file')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=ReadOptions,
        metavar='KEY=VALUE',
        help='override settings of the config, as in tools/train.py')
    args = parser.parse_args()
    cfg = Config.fromfile(args.config)
    if args.cfg_options is not None:
        cfg.merge_from_dict(read_options(args.cfg_options, cfg))
    print(cfg.pretty_text)


if __name__ == '__main__':
    run_tool(main)
