# Copyright (c) greenmim authors. All rights reserved.
"""What a run will take: `greenmim forecast`."""
from greenmim.benchmarking.forecast import main
from greenmim.command import run_tool

if __name__ == '__main__':
    run_tool(main)
