"""Lets a CUDA build of torchvision be imported with a CPU build of torch.

Its compiled library does not load there, so the operators that torchvision's Python code refers
to are missing. groundingdino-py imports torchvision.ops, and calls none of them to detect:
declaring them is enough.
"""

import importlib.util

import torch

_BOXES = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_POOL = "(Tensor input, Tensor rois, float spatial_scale, SymInt pooled_height, SymInt pooled_width"
_BACK = (
    "(Tensor grad, Tensor rois, {}float spatial_scale, SymInt pooled_height, SymInt pooled_width"
)
_SIZES = ", SymInt batch_size, SymInt channels, SymInt height, SymInt width) -> Tensor"
_CONV = (
    "Tensor input, Tensor weight, Tensor offset, Tensor mask, Tensor bias, SymInt stride_h, "
    "SymInt stride_w, SymInt pad_h, SymInt pad_w, SymInt dilation_h, SymInt dilation_w, "
    "SymInt groups, SymInt offset_groups, bool use_mask)"
)
_SCHEMAS = (
    "nms" + _BOXES,
    "qnms" + _BOXES,
    "roi_align" + _POOL + ", int sampling_ratio, bool aligned) -> Tensor",
    "qroi_align" + _POOL + ", int sampling_ratio, bool aligned) -> Tensor",
    "ps_roi_align" + _POOL + ", int sampling_ratio) -> (Tensor, Tensor)",
    "roi_pool" + _POOL + ") -> (Tensor, Tensor)",
    "ps_roi_pool" + _POOL + ") -> (Tensor, Tensor)",
    "_roi_align_backward"
    + _BACK.format("")
    + ", SymInt batch_size, SymInt channels, SymInt height, SymInt width, "
    "int sampling_ratio, bool aligned) -> Tensor",
    "_ps_roi_align_backward"
    + _BACK.format("Tensor channel_mapping, ")
    + ", int sampling_ratio"
    + _SIZES,
    "_roi_pool_backward" + _BACK.format("Tensor argmax, ") + _SIZES,
    "_ps_roi_pool_backward" + _BACK.format("Tensor channel_mapping, ") + _SIZES,
    "deform_conv2d(" + _CONV + " -> Tensor",
    "_deform_conv2d_backward(Tensor grad, "
    + _CONV
    + " -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
)


def install() -> torch.library.Library | None:
    """Declare the operators where torch is a CPU build; keep the result alive."""
    if torch.version.cuda or importlib.util.find_spec("torchvision") is None:
        return None
    library = torch.library.Library("torchvision", "DEF")
    for schema in _SCHEMAS:
        library.define(schema)
    import torchvision

    torchvision.extension._has_ops = lambda: True
    return library
