# Copyright (c) greenmim authors. All rights reserved.
"""Does pre-training help a detector: see `greenmim.apis.compare_detectors`."""
from greenmim.apis.compare_detectors import main
from greenmim.command import run_tool

if __name__ == '__main__':
    run_tool(main)
