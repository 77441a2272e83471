/* A stand-in for the CUDA runtime over the stand-in driver. PyTorch's own kernels are registered and "launched", and
 * never run. Whatever is not written here returns success and does nothing (see building.py). */
#define _GNU_SOURCE
#include <cuda.h>
#include <cuda_runtime_api.h>
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

#include "standin.h"

#define SET(pointer, value) do { if (pointer) *(pointer) = (value); } while (0)
#define OK return cudaSuccess

/* --- the device --- */

cudaError_t cudaDriverGetVersion(int *version) { SET(version, standin_version()); OK; }
cudaError_t cudaRuntimeGetVersion(int *version) { SET(version, standin_version()); OK; }
cudaError_t cudaGetDeviceCount(int *count) { SET(count, 1); OK; }
cudaError_t cudaGetDevice(int *device) { SET(device, 0); OK; }
cudaError_t cudaSetDevice(int device) { return device ? cudaErrorInvalidDevice : cudaSuccess; }
cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr attribute, int device) {
  SET(value, standin_attribute(attribute));
  OK;
}
cudaError_t cudaDeviceGetPCIBusId(char *id, int size, int device) { strncpy(id, "0000:01:00.0", size); OK; }
cudaError_t cudaDeviceGetStreamPriorityRange(int *least, int *greatest) { SET(least, 0); SET(greatest, -5); OK; }
cudaError_t cudaDeviceCanAccessPeer(int *can, int device, int peer) { SET(can, 0); OK; }
cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *p, int device) {
  if (device) return cudaErrorInvalidDevice;
  memset(p, 0, sizeof *p);
  strcpy(p->name, STANDIN_NAME);
  memset(&p->uuid, 0x5a, sizeof p->uuid);
  p->major = STANDIN_MAJOR, p->minor = STANDIN_MINOR;
  p->totalGlobalMem = STANDIN_MEMORY;
  p->warpSize = 32, p->multiProcessorCount = 132;
  p->maxThreadsPerBlock = 1024, p->maxThreadsPerMultiProcessor = 2048, p->maxBlocksPerMultiProcessor = 32;
  p->maxThreadsDim[0] = p->maxThreadsDim[1] = 1024, p->maxThreadsDim[2] = 64;
  p->maxGridSize[0] = 2147483647, p->maxGridSize[1] = p->maxGridSize[2] = 65535;
  p->regsPerBlock = p->regsPerMultiprocessor = 65536;
  p->sharedMemPerBlock = 49152, p->sharedMemPerBlockOptin = 232448, p->sharedMemPerMultiprocessor = 233472;
  p->reservedSharedMemPerBlock = 1024, p->totalConstMem = 65536, p->memPitch = 2147483647;
  p->l2CacheSize = 52428800, p->memoryBusWidth = 5120, p->textureAlignment = 512, p->asyncEngineCount = 3;
  p->pciBusID = 1, p->concurrentKernels = p->unifiedAddressing = p->canMapHostMemory = p->ECCEnabled = 1;
  p->cooperativeLaunch = p->clusterLaunch = p->memoryPoolsSupported = p->streamPrioritiesSupported = 1;
  OK;
}

/* --- memory --- */

static cudaError_t give(void **pointer, size_t size, enum standin_kind kind) {
  *pointer = size ? standin_alloc(size, kind) : NULL;
  return *pointer || !size ? cudaSuccess : cudaErrorMemoryAllocation;
}
static cudaError_t take(void *pointer) { return standin_release(pointer) ? cudaErrorInvalidValue : cudaSuccess; }
cudaError_t cudaMalloc(void **pointer, size_t size) { return give(pointer, size, STANDIN_DEVICE); }
cudaError_t cudaMallocManaged(void **pointer, size_t size, unsigned flags) { return give(pointer, size, STANDIN_DEVICE); }
cudaError_t cudaMallocAsync(void **pointer, size_t size, cudaStream_t stream) { return give(pointer, size, STANDIN_DEVICE); }
cudaError_t cudaHostAlloc(void **pointer, size_t size, unsigned flags) { return give(pointer, size, STANDIN_HOST); }
cudaError_t cudaMallocHost(void **pointer, size_t size) { return give(pointer, size, STANDIN_HOST); }
cudaError_t cudaFree(void *pointer) { return take(pointer); }
cudaError_t cudaFreeAsync(void *pointer, cudaStream_t stream) { return take(pointer); }
cudaError_t cudaFreeHost(void *pointer) { return take(pointer); }
cudaError_t cudaHostGetDevicePointer(void **device, void *host, unsigned flags) { SET(device, host); OK; }
cudaError_t cudaMemGetInfo(size_t *available, size_t *total) {
  SET(available, STANDIN_MEMORY - (1UL << 30));
  SET(total, STANDIN_MEMORY);
  OK;
}
cudaError_t cudaPointerGetAttributes(struct cudaPointerAttributes *attributes, const void *pointer) {
  enum standin_kind kind = standin_find(pointer, NULL, NULL);
  memset(attributes, 0, sizeof *attributes);
  attributes->type = kind == STANDIN_DEVICE ? cudaMemoryTypeDevice : kind == STANDIN_HOST ? cudaMemoryTypeHost : cudaMemoryTypeUnregistered;
  if (kind) attributes->hostPointer = attributes->devicePointer = (void *)pointer;
  OK;
}
static cudaError_t copy(void *to, const void *from, size_t size) { if (size) memmove(to, from, size); OK; }
cudaError_t cudaMemcpy(void *to, const void *from, size_t size, enum cudaMemcpyKind kind) { return copy(to, from, size); }
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t size, enum cudaMemcpyKind kind, cudaStream_t stream) {
  return copy(to, from, size);
}
cudaError_t cudaMemcpyPeerAsync(void *to, int there, const void *from, int here, size_t size, cudaStream_t stream) {
  return copy(to, from, size);
}
cudaError_t cudaMemcpy2DAsync(void *to, size_t to_pitch, const void *from, size_t from_pitch, size_t width, size_t height,
                              enum cudaMemcpyKind kind, cudaStream_t stream) {
  for (size_t row = 0; row < height; row++) copy((char *)to + row * to_pitch, (const char *)from + row * from_pitch, width);
  OK;
}
cudaError_t cudaMemset(void *pointer, int value, size_t size) { memset(pointer, value, size); OK; }
cudaError_t cudaMemsetAsync(void *pointer, int value, size_t size, cudaStream_t stream) { memset(pointer, value, size); OK; }
cudaError_t cudaGetSymbolAddress(void **pointer, const void *symbol) { return give(pointer, 4096, STANDIN_DEVICE); }
cudaError_t cudaDeviceGetDefaultMemPool(cudaMemPool_t *pool, int device) { SET(pool, (cudaMemPool_t)0x2000); OK; }
cudaError_t cudaMemPoolGetAttribute(cudaMemPool_t pool, enum cudaMemPoolAttr attribute, void *value) { *(size_t *)value = 0; OK; }

/* --- streams, events, graphs --- */

struct stream { int capturing, priority; unsigned long long capture; }; /* the driver reads `capturing`, too */
struct event { double clock; };
static unsigned long long captures;

static struct stream *real(cudaStream_t stream) { return stream > (cudaStream_t)2 ? (struct stream *)stream : NULL; }
static int capturing(cudaStream_t stream) { return real(stream) && real(stream)->capturing; }
cudaError_t cudaStreamCreateWithPriority(cudaStream_t *stream, unsigned flags, int priority) {
  struct stream *new = calloc(1, 64);
  new->priority = priority;
  *stream = (cudaStream_t)new;
  OK;
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags) { return cudaStreamCreateWithPriority(stream, flags, 0); }
cudaError_t cudaStreamCreate(cudaStream_t *stream) { return cudaStreamCreateWithPriority(stream, 0, 0); }
cudaError_t cudaStreamGetPriority(cudaStream_t stream, int *priority) { SET(priority, real(stream) ? real(stream)->priority : 0); OK; }
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, enum cudaStreamCaptureMode mode) {
  if (real(stream)) real(stream)->capturing = 1, real(stream)->capture = ++captures;
  standin_log("capture", "begin", captures);
  OK;
}
cudaError_t cudaStreamBeginCaptureToGraph(cudaStream_t stream, cudaGraph_t graph, const cudaGraphNode_t *nodes,
                                          const cudaGraphEdgeData *edges, size_t count, enum cudaStreamCaptureMode mode) {
  return cudaStreamBeginCapture(stream, mode);
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph) {
  if (real(stream)) real(stream)->capturing = 0;
  SET(graph, (cudaGraph_t)calloc(1, 64));
  OK;
}
cudaError_t cudaStreamIsCapturing(cudaStream_t stream, enum cudaStreamCaptureStatus *status) {
  SET(status, capturing(stream) ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone);
  OK;
}
cudaError_t cudaStreamGetCaptureInfo(cudaStream_t stream, enum cudaStreamCaptureStatus *status, unsigned long long *id,
                                     cudaGraph_t *graph, const cudaGraphNode_t **nodes, const cudaGraphEdgeData **edges,
                                     size_t *count) {
  static char any[64];
  SET(id, capturing(stream) ? real(stream)->capture : 0);
  SET(graph, (cudaGraph_t)any);
  SET(nodes, NULL);
  SET(edges, NULL);
  SET(count, 0);
  return cudaStreamIsCapturing(stream, status);
}
cudaError_t cudaStreamAddCallback(cudaStream_t stream, cudaStreamCallback_t call, void *data, unsigned flags) {
  call(stream, cudaSuccess, data);
  OK;
}
cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t call, void *data) { call(data); OK; }
cudaError_t cudaThreadExchangeStreamCaptureMode(enum cudaStreamCaptureMode *mode) { SET(mode, cudaStreamCaptureModeGlobal); OK; }

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags) { *event = (cudaEvent_t)calloc(1, 64); OK; }
cudaError_t cudaEventCreate(cudaEvent_t *event) { return cudaEventCreateWithFlags(event, 0); }
cudaError_t cudaEventDestroy(cudaEvent_t event) { free(event); OK; }
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) { ((struct event *)event)->clock = standin_clock(); OK; }
cudaError_t cudaEventRecordWithFlags(cudaEvent_t event, cudaStream_t stream, unsigned flags) { return cudaEventRecord(event, stream); }
cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t start, cudaEvent_t end) {
  double passed = ((struct event *)end)->clock - ((struct event *)start)->clock;
  *milliseconds = passed > 0.001 ? passed : 0.001; /* never 0: benchmarks divide by it */
  standin_log("elapsed", "us", *milliseconds * 1000);
  OK;
}

cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t *nodes, size_t *count) { SET(count, 1); if (nodes) memset(nodes, 0, sizeof *nodes); OK; }
cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t *exec, cudaGraph_t graph, unsigned long long flags) {
  *exec = (cudaGraphExec_t)calloc(1, 64);
  standin_log("graph", "instantiate", 0);
  OK;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t *exec, cudaGraph_t graph, unsigned long long flags) {
  return cudaGraphInstantiateWithFlags(exec, graph, flags);
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
  standin_launch("graph", 1);
  standin_log("graph", "launch", 0);
  OK;
}

/* --- PyTorch's own kernels, as nvcc registers them --- */

void **__cudaRegisterFatBinary(void *binary) { return calloc(1, 64); }
void __cudaRegisterFunction(void **binary, const char *stub, char *name, const char *device_name, int limit, uint3 *tid,
                            uint3 *bid, dim3 *block, dim3 *grid, int *size) {}
cudaError_t __cudaGetKernel(cudaKernel_t *kernel, const void *stub) { SET(kernel, (cudaKernel_t)stub); OK; }
unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared, void *stream) { return 0; }
cudaError_t __cudaPopCallConfiguration(dim3 *grid, dim3 *block, size_t *shared, void *stream) {
  grid->x = grid->y = grid->z = block->x = block->y = block->z = 1, *shared = 0, *(void **)stream = NULL;
  OK;
}
static cudaError_t launched(const void *stub) {
  Dl_info info;
  standin_launch("eager", 0.5);
  standin_log("eager", dladdr(stub, &info) && info.dli_sname ? info.dli_sname : "?", 0);
  OK;
}
cudaError_t cudaLaunchKernel(const void *stub, dim3 grid, dim3 block, void **arguments, size_t shared, cudaStream_t stream) {
  return launched(stub);
}
cudaError_t __cudaLaunchKernel(cudaKernel_t kernel, dim3 grid, dim3 block, void **arguments, size_t shared, cudaStream_t stream) {
  return launched(kernel);
}
cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t *config, const void *stub, void **arguments) { return launched(stub); }
cudaError_t cudaLaunchCooperativeKernel(const void *stub, dim3 grid, dim3 block, void **arguments, size_t shared, cudaStream_t stream) {
  return launched(stub);
}
cudaError_t cudaFuncGetAttributes(struct cudaFuncAttributes *attributes, const void *stub) {
  memset(attributes, 0, sizeof *attributes);
  attributes->maxThreadsPerBlock = 1024, attributes->numRegs = 32;
  attributes->binaryVersion = attributes->ptxVersion = 10 * STANDIN_MAJOR + STANDIN_MINOR;
  OK;
}
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, const void *stub, int size, size_t shared) { SET(blocks, 2); OK; }
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *blocks, const void *stub, int size, size_t shared, unsigned flags) {
  SET(blocks, 2);
  OK;
}

/* --- errors and symbols --- */

const char *cudaGetErrorString(cudaError_t error) { return error ? "stand-in error" : "no error"; }
const char *cudaGetErrorName(cudaError_t error) { return error ? "cudaErrorStandIn" : "cudaSuccess"; }
cudaError_t cudaGetDriverEntryPointByVersion(const char *name, void **function, unsigned version, unsigned long long flags,
                                             enum cudaDriverEntryPointQueryResult *result) {
  cuGetProcAddress(name, function, version, flags, NULL);
  SET(result, *function ? cudaDriverEntryPointSuccess : cudaDriverEntryPointSymbolNotFound);
  OK;
}
