# Copyright (c) greenmim authors. All rights reserved.
from greenmim.benchmarking.windows import main

if __name__ == '__main__':
    main()
