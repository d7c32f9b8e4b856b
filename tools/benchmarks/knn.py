# Copyright (c) greenmim authors. All rights reserved.
"""k-NN on frozen features: `greenmim knn`."""
from greenmim.apis.knn import main
from greenmim.command import run_tool

if __name__ == '__main__':
    run_tool(main)
