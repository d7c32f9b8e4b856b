# Copyright (c) greenmim authors. All rights reserved.
