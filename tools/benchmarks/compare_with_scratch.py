# Copyright (c) greenmim authors. All rights reserved.
"""Does pre-training help: `greenmim compare`."""
from greenmim.apis.compare import main
from greenmim.command import run_tool

if __name__ == '__main__':
    run_tool(main)
