# Copyright (c) greenmim authors. All rights reserved.
from greenmim.benchmarking.attention_cost import main

if __name__ == '__main__':
    main()
