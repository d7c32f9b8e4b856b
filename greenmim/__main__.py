# Copyright (c) greenmim authors. All rights reserved.
"""``python -m greenmim`` is the command ``greenmim``."""
import sys

from .command import main

if __name__ == '__main__':
    sys.exit(main())
