# Copyright (c) greenmim authors. All rights reserved.
from greenmim.benchmarking.comparison.over_compute import main

if __name__ == '__main__':
    main()
