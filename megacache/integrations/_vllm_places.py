"""What of vLLM's settings does not count: what names a place, an address or a process, or changes at every start.

Nothing on these lists changes what is compiled. What is not on them counts, also what a later vLLM adds. A variable
that vLLM's own key has counts in any case, for vLLM does not look for what was compiled under another value.
"""

import re
from collections.abc import Iterable, Mapping

_VARIABLES: Mapping[str, str] = {
    "names a folder or a file": """
        VLLM_ASSETS_CACHE VLLM_CACHE_ROOT VLLM_CONFIG_ROOT VLLM_CUDA_COMPATIBILITY_PATH VLLM_DEBUG_DUMP_PATH
        VLLM_FLASHINFER_AUTOTUNE_CACHE_DIR VLLM_LOGGING_CONFIG_PATH VLLM_LORA_RESOLVER_CACHE_DIR VLLM_MEDIA_CACHE
        VLLM_MODEL_REDIRECT_PATH VLLM_RPC_BASE_PATH VLLM_RUST_FRONTEND_PATH VLLM_XLA_CACHE_PATH
    """,
    "names where models and media come from": "VLLM_MEDIA_CONNECTOR VLLM_USE_MODELSCOPE",
    "names a host or a port": """
        VLLM_DP_MASTER_IP VLLM_HOST_IP VLLM_LOOPBACK_IP VLLM_NIXL_SIDE_CHANNEL_HOST VLLM_USAGE_STATS_SERVER
    """,
    "names a process, or a piece of memory that processes share": """
        VLLM_DIST_IDENT VLLM_OBJECT_STORAGE_SHM_BUFFER_NAME VLLM_PROCESS_NAME_PREFIX
    """,
    "is a secret": "VLLM_API_KEY",
    "says what is logged and reported, and to whom": """
        VLLM_BUILD_COMMIT VLLM_BUILD_PIPELINE VLLM_BUILD_URL VLLM_CONFIGURE_LOGGING VLLM_DEBUG_LOG_API_SERVER_RESPONSE
        VLLM_DISABLE_LOG_LOGO VLLM_DO_NOT_TRACK VLLM_IMAGE_TAG VLLM_LOGGING_COLOR VLLM_LOGGING_LEVEL
        VLLM_LOGGING_PREFIX VLLM_LOGGING_STREAM VLLM_LOG_BATCHSIZE_INTERVAL VLLM_LOG_STATS_INTERVAL VLLM_NO_USAGE_STATS
        VLLM_RINGBUFFER_WARNING_INTERVAL VLLM_USAGE_SOURCE
    """,
    "says how long something is waited for, and how often it is tried": """
        VLLM_AUDIO_FETCH_TIMEOUT VLLM_ENGINE_READY_TIMEOUT_S VLLM_EXECUTE_MODEL_TIMEOUT_SECONDS
        VLLM_HTTP_TIMEOUT_KEEP_ALIVE VLLM_IMAGE_FETCH_TIMEOUT VLLM_MEDIA_FETCH_MAX_RETRIES VLLM_VIDEO_FETCH_TIMEOUT
        VLLM_WORKER_SHUTDOWN_TIMEOUT_SECONDS
    """,
    "says how processes are started, and how artifacts are kept": """
        TORCHINDUCTOR_AUTOGRAD_CACHE TORCHINDUCTOR_COMPILE_THREADS TORCHINDUCTOR_FORCE_DISABLE_CACHES
        TORCHINDUCTOR_FX_GRAPH_CACHE TORCHINDUCTOR_FX_GRAPH_REMOTE_CACHE
        VLLM_DISABLE_COMPILE_CACHE VLLM_ENABLE_STARTUP_PLAN VLLM_ENABLE_V1_MULTIPROCESSING VLLM_FORCE_AOT_LOAD
        VLLM_KEEP_ALIVE_ON_ENGINE_DEATH VLLM_PLUGINS VLLM_SERVER_DEV_MODE VLLM_WORKER_MULTIPROC_METHOD
    """,
}
"""Variables by the reason for which they do not count."""
_LINKS = re.compile(r"\w+_SERVICE_(?:HOST|PORT(?:_\w+)?)|\w+_PORT(?:_\d+_(?:TCP|UDP|SCTP)(?:_(?:ADDR|PORT|PROTO))?)?")
"""Ports, and the addresses of services by which Kubernetes describes one of the name `vllm`."""

_SETTINGS: Mapping[str, str] = {
    "names a folder or a file": """
        compilation_config.cache_dir compilation_config.debug_dump_path
        compilation_config.local_cache_dir load_config.download_dir model_config.allowed_local_media_path
        model_config.hf_config_path model_config.tokenizer
    """,
    "names a host or a port": """
        model_config.allowed_media_domains parallel_config._coord_store_port
        parallel_config._data_parallel_master_port_list parallel_config.data_parallel_master_ip
        parallel_config.data_parallel_master_port parallel_config.data_parallel_rpc_port parallel_config.master_addr
        parallel_config.master_port kv_transfer_config.kv_ip kv_transfer_config.kv_port ec_transfer_config.ec_ip
        ec_transfer_config.ec_port
    """,
    "names the server, and not the model, or is drawn at random": """
        instance_id model_config.served_model_name kv_transfer_config.engine_id ec_transfer_config.engine_id
    """,
    "is a secret": "model_config.hf_token",
    "tells which of several processes this one is; vLLM's folders do so, too": """
        kv_transfer_config.kv_rank ec_transfer_config.ec_rank parallel_config._api_process_count
        parallel_config._api_process_rank parallel_config.assigned_physical_gpu_ids parallel_config.data_parallel_index
        parallel_config.data_parallel_rank parallel_config.data_parallel_rank_local parallel_config.node_rank
        parallel_config.numa_bind_cpus parallel_config.numa_bind_nodes parallel_config.placement_group
        parallel_config.rank parallel_config.ray_runtime_env
    """,
    "is counted or measured as vLLM goes on": """
        cache_config.cache_hit_alignment_tokens cache_config.effective_attention_block_size
        cache_config.hash_block_size cache_config.kv_cache_max_concurrency cache_config.kv_cache_size_tokens
        cache_config.num_cpu_blocks cache_config.num_gpu_blocks compilation_config.compilation_time
        compilation_config.encoder_compilation_time compilation_config.static_all_moe_layers
        compilation_config.static_forward_context compilation_config.traced_files
    """,
    "says what is logged and reported, and to whom": """
        kv_events_config logging_config observability_config profiler_config
    """,
    "says how long a server that ends waits": "shutdown_timeout",
}
"""Fields of vLLM's configuration by the reason for which they do not count, those below them among them."""


def _named(lists: Iterable[str]) -> frozenset[str]:
    return frozenset(name for names in lists for name in names.split())


_OTHER_VARIABLES, _OTHER_SETTINGS = _named(_VARIABLES.values()), _named(_SETTINGS.values())

READ_BESIDES = _named(
    [
        """
        AITER_BF16_FP8_MOE_BOUND CUBLASLT_WORKSPACE_SIZE CUBLAS_WORKSPACE_CONFIG FLASH_ATTENTION_TRITON_AMD_ENABLE
        FLA_COMPILER_MODE FLA_TRIL_PRECISION FLA_USE_CUDA_GRAPH FLA_USE_FAST_OPS FLA_USE_TMA FORCE_NUM_KV_SPLITS
        GDN_RECOMPUTE_SUPPRESS_LEVEL HIP_ONLINE_TUNING INKLING_GFX950_GLUON INKLING_MULTIMEM_AR INKLING_SPLIT_KV
        LAMPORT_RS_SCONV TORCH_CUDA_ARCH_LIST USE_DEFAULT_FLA_NORM USE_FLAGOS XPU_USE_TRITON_KERNEL
        """
    ]
)
"""Variables of other names by which vLLM 0.32 chooses between kernels; `VLLM_` begins the names of its own."""


def is_other_variable(name: str) -> bool:
    """Tell whether a variable that vLLM's own key leaves out does not count here either."""
    return name in _OTHER_VARIABLES or _LINKS.fullmatch(name) is not None


def is_other_setting(name: str) -> bool:
    """Tell whether a field of the configuration does not count."""
    return name in _OTHER_SETTINGS
