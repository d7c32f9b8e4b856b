# Copyright (c) greenmim authors. All rights reserved.
"""Export a backbone: `greenmim export`."""
from greenmim.apis.exporting import main
from greenmim.command import run_tool

if __name__ == '__main__':
    run_tool(main)
