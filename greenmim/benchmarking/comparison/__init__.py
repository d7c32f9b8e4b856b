# Copyright (c) greenmim authors. All rights reserved.
"""Compare pre-trainings that have the same budget.

``data`` finds images and draws labels, ``runs`` trains and times, ``frozen``
evaluates frozen weights. ``scratch`` compares with random weights, ``methods``
methods with each other; ``arguments`` defines the options of both commands.
"""
