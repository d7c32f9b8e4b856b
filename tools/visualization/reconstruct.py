# Copyright (c) greenmim authors. All rights reserved.
"""Draw reconstructions: `greenmim reconstruct`."""
from greenmim.apis.reconstruct import main
from greenmim.command import run_tool

if __name__ == '__main__':
    run_tool(main)
