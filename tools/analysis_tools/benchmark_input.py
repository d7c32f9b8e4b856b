# Copyright (c) greenmim authors. All rights reserved.
from greenmim.benchmarking.input import main
from greenmim.command import run_tool

if __name__ == '__main__':
    run_tool(main)
