"""Tensors that say they are on a GPU, where there is none, and compute real values on the CPU.

As on a GPU, tensors of two devices do not meet, and NumPy does not read them. `torch` builds for
CPUs have no device guards of GPUs, so for C++ they are on ``meta``, as a FakeTensor is.
"""

import contextlib
import sys
from collections import Counter

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

aten = torch.ops.aten
CPU = torch.device("cpu")
READS = {aten._local_scalar_dense.default, aten.nonzero.default, aten.equal.default}
TRANSFERS = {aten._to_copy.default, aten.copy_.default}
INDEXING = {aten.index, aten.index_put, aten.index_put_}
"""May have indices on the CPU."""
MISSING = {"mps": {aten._upsample_bilinear2d_aa.default}}
"""Kernels that a device lacks (pytorch issue 141287)."""
_used = []
"""The GPU of the last result."""
waits: Counter[str] = Counter()
"""Lines of the package that wait for the GPU to give a value, and how often."""


class GPUTensor(torch.Tensor):
    @staticmethod
    def __new__(cls, inner, place):
        layout = {"strides": inner.stride(), "storage_offset": inner.storage_offset()}
        wrapper = torch.Tensor._make_wrapper_subclass(
            cls, inner.shape, dtype=inner.dtype, device="meta", **layout
        )
        wrapper.inner, wrapper.place = inner, place
        return wrapper

    device = property(lambda self: self.place)
    is_cpu = is_meta = property(lambda self: False)
    is_cuda = property(lambda self: self.place.type == "cuda")

    def numpy(self, *_, **__):
        raise TypeError(f"can't convert {self.place} device type tensor to numpy")

    __array__ = numpy

    def tolist(self):
        _wait()
        return self.inner.tolist()

    def new_tensor(self, data, *, dtype=None, device=None):
        return torch.tensor(data, dtype=dtype or self.dtype, device=device or self.place)

    def __repr__(self):
        return f"GPUTensor({tuple(self.shape)}, {self.place})"

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        if func in (torch.Tensor.__getitem__, torch.Tensor.__setitem__):  # lists become tensors
            index = args[1] if isinstance(args[1], tuple) else (args[1],)
            index = tuple(torch.tensor(each) if isinstance(each, list) else each for each in index)
            args = args[0], index, *args[2:]
        if func is torch.Tensor.to and len(args) > 1 and isinstance(args[1], GPUTensor):
            args = args[0], args[1].place, args[1].dtype
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **(kwargs or {}))

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {})


class _Mode(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {})


def _run(func, args, kwargs):
    if func is aten.scalar_tensor.default:  # a number beside tensors, on any device
        kwargs = {**kwargs, "device": CPU}
    tensors = [each for each in tree_leaves((args, kwargs)) if isinstance(each, torch.Tensor)]
    here = [each.place for each in tensors if isinstance(each, GPUTensor)]
    is_transfer = func in TRANSFERS
    places = {each.device for each in tensors if each.dim() or isinstance(each, GPUTensor)}
    if len(places) > 1 and not is_transfer and func.overloadpacket not in INDEXING:
        raise RuntimeError(f"{func}: tensors on {sorted(map(str, places))}")
    wanted = kwargs.get("device")
    is_like = wanted is None or torch.device(wanted).type == "meta"  # as C++ sees a GPU
    if func is aten.copy_.default:
        place = args[0].device
    elif here and is_like:
        place = here[0]
    elif is_like and wanted is not None and torch._C._current_graph_task_id() >= 0:
        place = _used[-1]  # a gradient of zeros
    else:
        place = CPU if wanted is None else torch.device(wanted)
    if func in MISSING.get(place.type, ()):
        raise NotImplementedError(f"{func} is not implemented for {place.type}")
    on_gpu = place.type in ("cuda", "mps")
    if here and (func in READS or (is_transfer and not on_gpu)):
        _wait()
    args, kwargs = tree_map_only(GPUTensor, lambda each: each.inner, (args, kwargs))
    if on_gpu and "device" in kwargs:
        kwargs = {**kwargs, "device": CPU}
    result = func(*args, **kwargs)
    if not on_gpu:
        return result
    place = torch.device(place.type, place.index or 0)
    _used[:] = [place]
    same = {id(each.inner): each for each in tensors if isinstance(each, GPUTensor)}

    def wrapped(each):
        return same[id(each)] if id(each) in same else GPUTensor(each, place)

    return tree_map_only(torch.Tensor, wrapped, result)


def _wait():
    frame = sys._getframe()
    while frame is not None and "napari_simmat" not in frame.f_code.co_filename:
        frame = frame.f_back
    if frame is not None:
        waits[f"{frame.f_code.co_filename.rpartition('/')[2]}:{frame.f_lineno}"] += 1


@contextlib.contextmanager
def pretended_gpu(monkeypatch):
    """Context in which ``cuda:0`` and ``mps:0`` exist; `waits` begins at zero."""
    for name, value in {
        "torch.cuda._lazy_init": lambda: None,
        "torch.cuda.is_available": lambda: True,
        "torch.cuda.device_count": lambda: 1,
        "torch.cuda.empty_cache": lambda: None,
        "torch.backends.mps.is_available": lambda: True,
        "torch.mps.empty_cache": lambda: None,
    }.items():
        monkeypatch.setattr(name, value)
    lifts, swaps = (
        torch._C._only_lift_cpu_tensors(),
        torch.__future__.get_swap_module_params_on_conversion(),
    )
    torch._C._set_only_lift_cpu_tensors(True)
    torch.__future__.set_swap_module_params_on_conversion(True)
    waits.clear()
    try:
        with _Mode():
            yield
    finally:
        torch._C._set_only_lift_cpu_tensors(lifts)
        torch.__future__.set_swap_module_params_on_conversion(swaps)
