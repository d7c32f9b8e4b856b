# Copyright (c) greenmim authors. All rights reserved.
"""What values images hold: `greenmim statistics`."""
from greenmim.apis.statistics import main
from greenmim.command import run_tool

if __name__ == '__main__':
    run_tool(main)
