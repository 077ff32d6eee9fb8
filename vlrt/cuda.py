"""The options of ONNX Runtime's providers for NVIDIA GPUs that fit these models, as data.

Names and meanings: onnxruntime.ai, "CUDA Execution Provider" and "TensorRT Execution Provider".
"""

from pathlib import Path

MIB = 1 << 20
# Bits of `sdpa_kernel`, onnxruntime's `contrib_ops/cpu/bert/attention_common.h`.
_FLASH, _MEMORY_EFFICIENT = 1, 2


def options(
    device_id: int = 0, memory_limit: int | None = None, *, cuda_graph: bool = False
) -> dict[str, str]:
    """The options of the provider for CUDA.

    Args:
        device_id: which GPU.
        memory_limit: what one graph's weights and values may take there, in MiB; None for no limit.
        cuda_graph: record a run of each shape, and replay it.
    """
    made = {
        "device_id": str(device_id),
        # The arena takes what a run needs. It would double itself otherwise.
        "arena_extend_strategy": "kSameAsRequested",
        # For graphs with convolutions, which are foreign ones: ours cut patches by a product, so
        # that `prefer_nhwc` would have nothing to prefer. cuDNN would try all its ways at each new
        # shape, for seconds, and with room for the largest.
        "cudnn_conv_algo_search": "HEURISTIC",
        "cudnn_conv_use_max_workspace": "0",
        # fp32 is fp32: TF32 keeps 10 bits of a factor, as fp16 does, which is faster.
        "use_tf32": "0",
        # Attention by the flash kernels, or the memory-efficient ones where those do not do. Those
        # of cuDNN would be planned at each new shape.
        "sdpa_kernel": str(_FLASH | _MEMORY_EFFICIENT),
        # Sums of squares in fp32 where a residual is added and normalised: in fp16 they overflow.
        "enable_skip_layer_norm_strict_mode": "1",
    }
    if memory_limit is not None:
        made["gpu_mem_limit"] = str(memory_limit * MIB)
    if cuda_graph:
        made["enable_cuda_graph"] = "1"
    return made


def tensorrt_options(device_id: int, engine_cache: str, *, fp16: bool = False) -> dict[str, str]:
    """The options of the provider for TensorRT.

    Args:
        device_id: which GPU.
        engine_cache: the folder that engines are kept in, and what they were timed with.
        fp16: whether it may compute in fp16, as graphs in fp16 ask it to.
    """
    folder = str(Path(engine_cache))
    return {
        "device_id": str(device_id),
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": folder,
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": folder,
        "trt_fp16_enable": str(int(fp16)),
    }
