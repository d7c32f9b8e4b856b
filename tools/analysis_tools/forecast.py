# Copyright (c) greenmim authors. All rights reserved.
from greenmim.benchmarking.forecast import main

if __name__ == '__main__':
    main()
