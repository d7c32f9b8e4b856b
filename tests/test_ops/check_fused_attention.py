# Copyright (c) greenmim authors. All rights reserved.
"""Compare the fused kernel with loops over windows; a script that fails.

``test_group_attention.py`` runs it in a process of its own.
"""
import torch

from greenmim.ops import GroupIndex, group_attention
from greenmim.ops.group_attention import choose_backend
from tests.test_ops.test_group_attention import (attention_by_loops, make_case,
                                                 relative_error)

# (case, images, heads, channels, padding, dtype, largest relative error);
# 70 more slots make groups of two tiles; fp16 stands for the half types,
# since products of bf16 are wrong in Triton's interpreter (3.6)
RUNS = [
    ('shared', 2, 2, 3, 0, torch.float32, 1e-5),
    ('image', 1, 1, 17, 5, torch.float32, 1e-5),
    ('one-unit', 1, 1, 4, 70, torch.float32, 1e-5),
    ('one-token', 1, 2, 8, 1, torch.float32, 1e-5),
    ('shared', 1, 2, 4, 3, torch.float16, 3e-3),
]


def main() -> None:
    device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    for case, images, heads, d, padding, dtype, limit in RUNS:
        torch.manual_seed(0)
        plan, tokens, qkv, table, S, heads = make_case(case, images, heads, d,
                                                       padding)
        index = GroupIndex.from_plan(plan, S, heads, device)
        expected = attention_by_loops(qkv, tokens, table, plan.table_size,
                                      heads, 0.7)
        weight = torch.randn_like(expected)
        grads = torch.autograd.grad((expected * weight).sum(), (qkv, table))

        inputs = [
            x.detach().to(device, dtype).requires_grad_() for x in (qkv, table)
        ]
        assert choose_backend('fused', inputs[0], 0.) == 'fused'
        actual = group_attention(
            inputs[0], index, inputs[1], 0.7, backend='fused')
        assert actual.dtype == dtype
        actual_grads = torch.autograd.grad((actual * weight.to(actual)).sum(),
                                           inputs)
        errors = [
            relative_error(a.cpu().double(), b)
            for a, b in zip((actual, *actual_grads), (expected, *grads))
        ]
        assert max(errors) <= limit, (case, dtype, errors)
        print('equal', case, dtype, errors)


if __name__ == '__main__':
    main()
