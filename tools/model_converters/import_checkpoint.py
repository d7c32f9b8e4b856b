# Copyright (c) greenmim authors. All rights reserved.
"""Import a checkpoint: `greenmim import`."""
from greenmim.apis.import_checkpoint import main
from greenmim.command import run_tool

if __name__ == '__main__':
    run_tool(main)
