# Copyright (c) greenmim authors. All rights reserved.
"""Weights of other libraries and for them: names, orders, passports."""
from .convert import (SOURCES, TARGETS, Backbone, Target, fit_to,
                      read_backbone, tensors_for)
from .neck import convert_neck
from .reading import Source, read_checkpoint, read_source, read_state_dict
from .rest import convert_rest
from .usage import usage_of
from .writing import passport_of, summarise, write_report, write_weights

__all__ = [
    'Backbone', 'SOURCES', 'Source', 'TARGETS', 'Target', 'convert_neck',
    'convert_rest', 'fit_to', 'passport_of', 'read_backbone',
    'read_checkpoint', 'read_source', 'read_state_dict', 'tensors_for',
    'summarise', 'usage_of', 'write_report', 'write_weights'
]
