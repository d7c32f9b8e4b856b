# Copyright (c) greenmim authors. All rights reserved.
import time

from greenmim.command import run_tool


def main() -> None:
    start = time.monotonic()  # imports take a part of the minutes
    from greenmim.benchmarking.gpu_report import main as measure
    measure(start=start)


if __name__ == '__main__':
    run_tool(main)
