# Copyright (c) greenmim authors. All rights reserved.
"""The fused kernels, compiled for GPUs by Triton where there is none.

Triton's interpreter runs kernels that do not compile, and compiles nothing.
Here its compiler and its assembler run, for the GPUs that a stub of the
driver names.
"""
import re
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from greenmim.ops import GroupIndex
from greenmim.ops.group_attention import choose_backend
from tests.test_ops.test_attention_backends import CPU, Case, make_plan

triton = pytest.importorskip('triton')
kernels = pytest.importorskip('greenmim.ops._triton_attention')

TOOLS = Path(triton.__file__).parent / 'backends' / 'nvidia' / 'bin'
A100, RTX_30, RTX_40, H100, RTX_50 = 80, 86, 89, 90, 120
# Bytes of shared memory that a block can have.
SHARED = {
    A100: 163 << 10,
    RTX_30: 99 << 10,
    RTX_40: 99 << 10,
    H100: 227 << 10,
    RTX_50: 99 << 10
}
HALF, FLOAT, BFLOAT = torch.float16, torch.float32, torch.bfloat16


class Driver:
    """What the compiler asks of the driver of a GPU.

    Devices have the numbers of their kinds.
    """

    def __init__(self, device: int, shared: int) -> None:
        self.get_current_device = lambda: device
        self.get_current_stream = lambda device: 0
        target = triton.backends.compiler.GPUTarget('cuda', device, 32)
        self.get_current_target = lambda: target
        self.utils = SimpleNamespace(
            get_device_properties=lambda device: dict(max_shared_mem=shared))


@pytest.fixture
def gpu(monkeypatch):
    """``gpu(kind, shared)`` makes it the device that Triton compiles for."""
    config = triton.runtime.driver
    name = '_active' if hasattr(config, '_active') else 'active'

    def choose(kind: int, shared: int = 0) -> None:
        device = Driver(kind, shared or SHARED[kind])
        monkeypatch.setattr(config, name, device)

    kernels.why_not.cache_clear()
    yield choose
    kernels.why_not.cache_clear()


def stack_of(compiled, folder: Path) -> int:
    """The bytes that a thread keeps in memory for want of registers."""
    file = folder / 'kernel.cubin'
    file.write_bytes(compiled.asm['cubin'])
    usage = subprocess.run(
        [TOOLS / 'cuobjdump', '--dump-resource-usage', file],
        check=True,
        capture_output=True,
        text=True).stdout
    return int(re.search(r' STACK:(\d+)', usage)[1])


# The dtype, the channels of a head, the group size and the GPU
VARIANTS = [
    (BFLOAT, 32, 49, H100),
    (BFLOAT, 16, 12, H100),
    (BFLOAT, 32, 196, H100),
    (BFLOAT, 64, 64, H100),
    (BFLOAT, 64, 196, H100),
    (HALF, 24, 24, H100),
    (FLOAT, 32, 49, H100),
    (BFLOAT, 32, 49, A100),
    (BFLOAT, 64, 196, A100),
    (HALF, 32, 192, A100),
    (FLOAT, 32, 144, A100),
    (BFLOAT, 32, 1, RTX_30),
    (BFLOAT, 32, 49, RTX_40),
    (BFLOAT, 32, 49, RTX_50),
]


@pytest.mark.parametrize('dtype, d, group_size, kind', VARIANTS)
@pytest.mark.parametrize(
    'kernel', kernels.KERNELS, ids=lambda kernel: kernel.__name__)
def test_a_kernel_compiles(gpu, tmp_path, kernel, dtype, d, group_size, kind):
    gpu(kind)
    compiled = kernels.compile_kernel(kernel, dtype, d, group_size)
    assert compiled.metadata.shared <= SHARED[kind]
    large = d == 64 and group_size > 144
    assert stack_of(compiled, tmp_path) <= (160 if large else 64)
    # An atomic operation that orders memory is a fence of the whole GPU.
    atomics = re.findall(r'\b(?:atom|red)\.\S+', compiled.asm['ptx'])
    assert bool(atomics) is (kernel is kernels._backward_table)
    assert all('.relaxed' in atomic for atomic in atomics)
    code = subprocess.run([TOOLS / 'nvdisasm', tmp_path / 'kernel.cubin'],
                          check=True,
                          capture_output=True,
                          text=True).stdout
    # What wgmma needs are fences of a block.
    assert 'EXIT' in code
    assert not re.search(r'MEMBAR\S*\.(GPU|SYS)|CCTL\.IVALL', code)


def test_a_mask_does_not_compile_again(gpu):
    """Other numbers of groups, slots and tokens run what is there."""
    gpu(H100)
    kernel = kernels._backward_table
    kernels.compile_kernel(kernel, BFLOAT, 16, 12)
    compiled = kernel.device_caches[H100][0]
    number = len(compiled)
    types = [BFLOAT, FLOAT, torch.int64, torch.int32, torch.int32
             ] + [FLOAT, FLOAT, BFLOAT, FLOAT]
    constants = kernels._constants(BFLOAT, 16, 12)
    for numbers in ([1] * 9, [16] * 9, [7] * 9, [64] * 9):
        S, N, h, P, g, R, copies, images, middle = numbers
        kernel.warmup(
            *types,
            S,
            N,
            h,
            P,
            g,
            R,
            copies,
            images,
            .5,
            middle,
            16,
            grid=(1, ),
            **constants)
    assert len(compiled) == number


def attention(channels: int = 16, dtype: torch.dtype = BFLOAT) -> str:
    """The backend of an attention on a GPU that asked for ``fused``."""
    plan, tokens, _ = make_plan(Case(window=3))
    qkv = SimpleNamespace(
        is_cuda=True,
        dtype=dtype,
        shape=(1, len(tokens), 2 * 3 * channels),
        device=torch.device('cuda', 0))
    return choose_backend('fused', qkv, GroupIndex.from_plan(plan, 2, CPU), 0.)


def test_enough_shared_memory(gpu):
    gpu(H100)
    assert attention() == 'fused'


def test_too_little_shared_memory_falls_back(gpu):
    gpu(H100, 1000)
    with pytest.warns(UserWarning, match='shared memory.*1000.*sdpa') as lines:
        assert attention() == 'sdpa'
    assert len(lines) == 1


@pytest.mark.parametrize('channels, dtype', [(48, FLOAT), (80, BFLOAT)])
def test_large_heads_fall_back(gpu, channels, dtype):
    gpu(H100)
    with pytest.warns(UserWarning, match=f'channels.*{channels}.*sdpa'):
        assert attention(channels, dtype) == 'sdpa'
