# Copyright (c) greenmim authors. All rights reserved.
"""Import and export of checkpoints: names, orders and metadata."""
from .convert import (SOURCES, TARGETS, Backbone, Target, fit_to,
                      read_backbone, tensors_for)
from .decoders import convert_decoder_or_head, convert_neck
from .huggingface import find_weights, of_model
from .loaded import check_fitting, load_weights, report_loading
from .loading_code import loading_code
from .reading import (Source, UnsafeCheckpoint, add_ema_options, is_trusting,
                      read_checkpoint, read_source, read_state_dict, trusting)
from .writing import model_card, summarise, write_weights

__all__ = [
    'Backbone', 'SOURCES', 'Source', 'TARGETS', 'Target', 'UnsafeCheckpoint',
    'add_ema_options', 'check_fitting', 'convert_decoder_or_head',
    'convert_neck', 'find_weights', 'fit_to', 'is_trusting', 'load_weights',
    'loading_code', 'model_card', 'of_model', 'read_backbone',
    'read_checkpoint', 'read_source', 'read_state_dict', 'report_loading',
    'summarise', 'tensors_for', 'trusting', 'write_weights'
]
