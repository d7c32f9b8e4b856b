# Copyright (c) greenmim authors. All rights reserved.
from greenmim.benchmarking.plots import main

if __name__ == '__main__':
    main()
