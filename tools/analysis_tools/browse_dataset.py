# Copyright (c) greenmim authors. All rights reserved.
"""Show training samples and masks: `greenmim browse`."""
from greenmim.apis.browse import main
from greenmim.command import run_tool

if __name__ == '__main__':
    run_tool(main)
