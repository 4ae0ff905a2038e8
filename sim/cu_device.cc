// cuInit, devices and their attributes, versions, error texts.
//
// The modelled card has the figures of an H100 SXM, so that programs size their launches as there;
// its name says what it really is.
#include <stdio.h>
#include <string.h>

#include <map>

#include "memory.h"
#include "runtime.h"

using namespace allot::sim;

namespace {

constexpr int kDriverVersion = 13000;

const std::map<int, int>& attributes() {
  static const auto& table = *new std::map<int, int>{
      {1, 1024},        {2, 1024},     {3, 1024},       {4, 64},          {5, 2147483647},
      {6, 65535},       {7, 65535},    {8, 49152},      {9, 65536},       {10, 32},
      {11, 2147483647}, {12, 65536},   {13, 1980000},   {14, 512},        {15, 1},
      {16, 132},        {17, 0},       {18, 0},         {19, 1},          {20, 0},
      {21, 131072},     {22, 131072},  {23, 65536},     {24, 16384},      {25, 16384},
      {26, 16384},      {27, 32768},   {28, 32768},     {29, 2048},       {30, 512},
      {31, 1},          {32, 1},       {33, 0},         {34, 0},          {35, 0},
      {36, 2619000},    {37, 5120},    {38, 52428800},  {39, 2048},       {40, 3},
      {41, 1},          {42, 32768},   {43, 2048},      {44, 1},          {45, 32768},
      {46, 32768},      {47, 8192},    {48, 8192},      {49, 32768},      {50, 0},
      {51, 32},         {52, 32768},   {53, 32768},     {54, 2046},       {55, 32768},
      {56, 131072},     {57, 65536},   {58, 16384},     {59, 16384},      {60, 16384},
      {61, 32768},      {62, 2048},    {63, 32768},     {64, 32768},      {65, 2048},
      {66, 32768},      {67, 32768},   {68, 2046},      {69, 268435456},  {70, 131072},
      {71, 65000},      {72, 2097120}, {73, 32768},     {74, 32768},      {75, 9},
      {76, 0},          {77, 32768},   {78, 1},         {79, 1},          {80, 1},
      {81, 233472},     {82, 65536},   {83, 1},         {84, 0},          {85, 0},
      {86, 0},          {87, 2},       {88, 0},         {89, 1},          {90, 1},
      {91, 1},          {92, 1},       {93, 1},         {94, 1},          {95, 1},
      {96, 0},          {97, 232448},  {98, 0},         {99, 1},          {100, 0},
      {101, 0},         {102, 1},      {103, 1},        {104, 0},         {105, 0},
      {106, 32},        {107, 0},      {108, 32768000}, {109, 134213632}, {110, 0},
      {111, 1024},      {112, 0},      {113, 1},        {114, 0},         {115, 1},
      {116, 0},         {117, 0},      {118, 0},        {119, 1},         {120, 1},
      {121, 0},         {122, 1},      {123, 1},        {124, 0},         {125, 1},
      {126, 4},         {127, 0},      {128, 0},        {129, 1},         {130, 0},
      {131, -1},        {132, 0},      {133, 0},        {134, 0},         {135, 0},
      {136, 0},         {137, 0},      {138, 0},        {139, 0},         {140, 0},
      {141, 0},         {142, 0},      {143, 0},        {144, 0},         {145, 0},
      {146, 0},         {147, 0}};
  return table;
}

struct ErrorText {
  CUresult code;
  const char *name, *text;
};

constexpr ErrorText kErrors[] = {
    {CUDA_SUCCESS, "CUDA_SUCCESS", "no error"},
    {CUDA_ERROR_INVALID_VALUE, "CUDA_ERROR_INVALID_VALUE", "invalid argument"},
    {CUDA_ERROR_OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"},
    {CUDA_ERROR_NOT_INITIALIZED, "CUDA_ERROR_NOT_INITIALIZED", "initialization error"},
    {CUDA_ERROR_DEINITIALIZED, "CUDA_ERROR_DEINITIALIZED", "driver shutting down"},
    {CUDA_ERROR_DEVICE_UNAVAILABLE, "CUDA_ERROR_DEVICE_UNAVAILABLE", "device busy or unavailable"},
    {CUDA_ERROR_NO_DEVICE, "CUDA_ERROR_NO_DEVICE", "no device detected"},
    {CUDA_ERROR_INVALID_DEVICE, "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"},
    {CUDA_ERROR_INVALID_IMAGE, "CUDA_ERROR_INVALID_IMAGE", "device kernel image is invalid"},
    {CUDA_ERROR_INVALID_CONTEXT, "CUDA_ERROR_INVALID_CONTEXT", "invalid device context"},
    {CUDA_ERROR_MAP_FAILED, "CUDA_ERROR_MAP_FAILED", "mapping failed"},
    {CUDA_ERROR_ALREADY_MAPPED, "CUDA_ERROR_ALREADY_MAPPED", "already mapped"},
    {CUDA_ERROR_NO_BINARY_FOR_GPU, "CUDA_ERROR_NO_BINARY_FOR_GPU",
     "no kernel image for this device (the software GPU takes PTX only)"},
    {CUDA_ERROR_NOT_MAPPED, "CUDA_ERROR_NOT_MAPPED", "not mapped"},
    {CUDA_ERROR_UNSUPPORTED_LIMIT, "CUDA_ERROR_UNSUPPORTED_LIMIT", "limit not supported"},
    {CUDA_ERROR_CONTEXT_ALREADY_IN_USE, "CUDA_ERROR_CONTEXT_ALREADY_IN_USE", "context in use"},
    {CUDA_ERROR_PEER_ACCESS_UNSUPPORTED, "CUDA_ERROR_PEER_ACCESS_UNSUPPORTED", "no peer access"},
    {CUDA_ERROR_INVALID_PTX, "CUDA_ERROR_INVALID_PTX", "invalid PTX"},
    {CUDA_ERROR_FILE_NOT_FOUND, "CUDA_ERROR_FILE_NOT_FOUND", "file not found"},
    {CUDA_ERROR_OPERATING_SYSTEM, "CUDA_ERROR_OPERATING_SYSTEM", "OS call failed"},
    {CUDA_ERROR_INVALID_HANDLE, "CUDA_ERROR_INVALID_HANDLE", "invalid resource handle"},
    {CUDA_ERROR_ILLEGAL_STATE, "CUDA_ERROR_ILLEGAL_STATE", "resource in a state that forbids this"},
    {CUDA_ERROR_NOT_FOUND, "CUDA_ERROR_NOT_FOUND", "named symbol not found"},
    {CUDA_ERROR_NOT_READY, "CUDA_ERROR_NOT_READY", "not ready"},
    {CUDA_ERROR_ILLEGAL_ADDRESS, "CUDA_ERROR_ILLEGAL_ADDRESS", "illegal memory access"},
    {CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES, "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES",
     "too many resources requested for launch"},
    {CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED, "CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED",
     "peer access is already enabled"},
    {CUDA_ERROR_PEER_ACCESS_NOT_ENABLED, "CUDA_ERROR_PEER_ACCESS_NOT_ENABLED",
     "peer access is not enabled"},
    {CUDA_ERROR_PRIMARY_CONTEXT_ACTIVE, "CUDA_ERROR_PRIMARY_CONTEXT_ACTIVE",
     "primary context is active"},
    {CUDA_ERROR_CONTEXT_IS_DESTROYED, "CUDA_ERROR_CONTEXT_IS_DESTROYED", "context is destroyed"},
    {CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED, "CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED",
     "host memory is already registered"},
    {CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED, "CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED",
     "host memory is not registered"},
    {CUDA_ERROR_LAUNCH_FAILED, "CUDA_ERROR_LAUNCH_FAILED", "launch failed"},
    {CUDA_ERROR_NOT_PERMITTED, "CUDA_ERROR_NOT_PERMITTED", "operation not permitted"},
    {CUDA_ERROR_NOT_SUPPORTED, "CUDA_ERROR_NOT_SUPPORTED", "operation not supported"},
    {CUDA_ERROR_SYSTEM_NOT_READY, "CUDA_ERROR_SYSTEM_NOT_READY",
     "the software machine is in use with another ALLOT_SIM_GPUS"},
    {CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED",
     "not permitted while a stream is capturing"},
    {CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED",
     "capture failed because of an earlier error"},
    {CUDA_ERROR_STREAM_CAPTURE_MERGE, "CUDA_ERROR_STREAM_CAPTURE_MERGE",
     "two captures would merge"},
    {CUDA_ERROR_STREAM_CAPTURE_UNMATCHED, "CUDA_ERROR_STREAM_CAPTURE_UNMATCHED",
     "capture was not begun in this stream"},
    {CUDA_ERROR_STREAM_CAPTURE_UNJOINED, "CUDA_ERROR_STREAM_CAPTURE_UNJOINED",
     "capture has unjoined work in another stream"},
    {CUDA_ERROR_STREAM_CAPTURE_ISOLATION, "CUDA_ERROR_STREAM_CAPTURE_ISOLATION",
     "dependency on work outside the capture"},
    {CUDA_ERROR_STREAM_CAPTURE_IMPLICIT, "CUDA_ERROR_STREAM_CAPTURE_IMPLICIT",
     "implicit dependency on the legacy stream in a capture"},
    {CUDA_ERROR_CAPTURED_EVENT, "CUDA_ERROR_CAPTURED_EVENT", "event was recorded in a capture"},
    {CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD, "CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD",
     "capture belongs to another thread"},
    {CUDA_ERROR_TIMEOUT, "CUDA_ERROR_TIMEOUT", "timed out"},
    {CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE, "CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE",
     "the graph cannot be updated in place"},
    {CUDA_ERROR_UNKNOWN, "CUDA_ERROR_UNKNOWN", "unknown error"},
};

const ErrorText* find_error(CUresult code) {
  for (const ErrorText& e : kErrors) {
    if (e.code == code) return &e;
  }
  return nullptr;
}

CUresult copy_text(const std::string& text, char* out, int size) {
  if (out == nullptr || size <= 0) return CUDA_ERROR_INVALID_VALUE;
  snprintf(out, static_cast<size_t>(size), "%s", text.c_str());
  return CUDA_SUCCESS;
}

}  // namespace

SIM_API cuInit(unsigned flags) {
  if (flags != 0) return CUDA_ERROR_INVALID_VALUE;
  if (const CUresult r = initialise(); r != CUDA_SUCCESS) return r;
  return enter(__func__);
}

SIM_API cuDriverGetVersion(int* version) {
  if (version == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *version = kDriverVersion;
  return CUDA_SUCCESS;
}

SIM_API cuDeviceGetCount(int* count) {
  SIM_ENTER();
  if (count == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *count = device_count();
  return CUDA_SUCCESS;
}

SIM_API cuDeviceGet(CUdevice* device, int ordinal) {
  SIM_ENTER();
  if (device == nullptr) return CUDA_ERROR_INVALID_VALUE;
  if (!valid_device(ordinal)) return CUDA_ERROR_INVALID_DEVICE;
  *device = ordinal;
  return CUDA_SUCCESS;
}

SIM_API cuDeviceGetName(char* name, int size, CUdevice device) {
  SIM_ENTER();
  if (!valid_device(device)) return CUDA_ERROR_INVALID_DEVICE;
  return copy_text("Software GPU (allot)", name, size);
}

SIM_API cuDeviceGetUuid(CUuuid* uuid, CUdevice device) {
  SIM_ENTER();
  if (uuid == nullptr) return CUDA_ERROR_INVALID_VALUE;
  if (!valid_device(device)) return CUDA_ERROR_INVALID_DEVICE;
  memcpy(uuid->bytes, machine()->gpus[gpu_of(device)].uuid, 16);
  return CUDA_SUCCESS;
}

SIM_API cuDeviceGetUuid_v2(CUuuid* uuid, CUdevice device) {
  return cuDeviceGetUuid(uuid, device);
}

SIM_API cuDeviceTotalMem_v2(size_t* bytes, CUdevice device) {
  SIM_ENTER();
  if (bytes == nullptr) return CUDA_ERROR_INVALID_VALUE;
  if (!valid_device(device)) return CUDA_ERROR_INVALID_DEVICE;
  *bytes = machine()->gpus[gpu_of(device)].bytes;
  return CUDA_SUCCESS;
}

SIM_API cuDeviceGetAttribute(int* value, CUdevice_attribute attribute, CUdevice device) {
  SIM_ENTER();
  if (value == nullptr) return CUDA_ERROR_INVALID_VALUE;
  if (!valid_device(device)) return CUDA_ERROR_INVALID_DEVICE;
  const auto it = attributes().find(attribute);
  if (it == attributes().end()) return CUDA_ERROR_INVALID_VALUE;
  *value = it->second;
  if (attribute == CU_DEVICE_ATTRIBUTE_PCI_DEVICE_ID) *value = static_cast<int>(gpu_of(device)) + 1;
  return CUDA_SUCCESS;
}

SIM_API cuDeviceComputeCapability(int* major, int* minor, CUdevice device) {
  SIM_ENTER();
  if (major == nullptr || minor == nullptr) return CUDA_ERROR_INVALID_VALUE;
  if (!valid_device(device)) return CUDA_ERROR_INVALID_DEVICE;
  *major = 9;
  *minor = 0;
  return CUDA_SUCCESS;
}

SIM_API cuDeviceGetProperties(CUdevprop* prop, CUdevice device) {
  SIM_ENTER();
  if (prop == nullptr) return CUDA_ERROR_INVALID_VALUE;
  if (!valid_device(device)) return CUDA_ERROR_INVALID_DEVICE;
  *prop = CUdevprop{1024,
                    {1024, 1024, 64},
                    {2147483647, 65535, 65535},
                    49152,
                    65536,
                    32,
                    2147483647,
                    65536,
                    1980000,
                    512};
  return CUDA_SUCCESS;
}

SIM_API cuDeviceGetPCIBusId(char* text, int size, CUdevice device) {
  SIM_ENTER();
  if (!valid_device(device)) return CUDA_ERROR_INVALID_DEVICE;
  char id[32];
  snprintf(id, sizeof id, "0000:00:%02X.0", gpu_of(device) + 1);
  return copy_text(id, text, size);
}

SIM_API cuDeviceGetByPCIBusId(CUdevice* device, const char* text) {
  SIM_ENTER();
  if (device == nullptr || text == nullptr) return CUDA_ERROR_INVALID_VALUE;
  unsigned domain, bus, slot;
  if (sscanf(text, "%x:%x:%x", &domain, &bus, &slot) != 3) {
    domain = 0;
    if (sscanf(text, "%x:%x", &bus, &slot) != 2) return CUDA_ERROR_INVALID_VALUE;
  }
  for (CUdevice d = 0; d < device_count(); d++) {
    if (domain == 0 && bus == 0 && slot == gpu_of(d) + 1) {
      *device = d;
      return CUDA_SUCCESS;
    }
  }
  return CUDA_ERROR_INVALID_DEVICE;
}

SIM_API cuDeviceCanAccessPeer(int* can, CUdevice device, CUdevice peer) {
  SIM_ENTER();
  if (can == nullptr) return CUDA_ERROR_INVALID_VALUE;
  if (!valid_device(device) || !valid_device(peer)) return CUDA_ERROR_INVALID_DEVICE;
  *can = device != peer;
  return CUDA_SUCCESS;
}

SIM_API cuDeviceGetP2PAttribute(int* value, CUdevice_P2PAttribute attribute, CUdevice from,
                                CUdevice to) {
  SIM_ENTER();
  if (value == nullptr) return CUDA_ERROR_INVALID_VALUE;
  if (!valid_device(from) || !valid_device(to) || from == to) return CUDA_ERROR_INVALID_DEVICE;
  *value = attribute == CU_DEVICE_P2P_ATTRIBUTE_ACCESS_SUPPORTED ||
           attribute == CU_DEVICE_P2P_ATTRIBUTE_CUDA_ARRAY_ACCESS_SUPPORTED;
  return CUDA_SUCCESS;
}

SIM_API cuDeviceGetExecAffinitySupport(int* value, CUexecAffinityType, CUdevice device) {
  SIM_ENTER();
  if (value == nullptr) return CUDA_ERROR_INVALID_VALUE;
  if (!valid_device(device)) return CUDA_ERROR_INVALID_DEVICE;
  *value = 0;
  return CUDA_SUCCESS;
}

SIM_API cuDeviceGetTexture1DLinearMaxWidth(size_t* width, CUarray_format, unsigned channels,
                                           CUdevice device) {
  SIM_ENTER();
  if (width == nullptr || channels == 0) return CUDA_ERROR_INVALID_VALUE;
  if (!valid_device(device)) return CUDA_ERROR_INVALID_DEVICE;
  *width = 268435456;
  return CUDA_SUCCESS;
}

SIM_API cuGetErrorName(CUresult error, const char** text) {
  if (text == nullptr) return CUDA_ERROR_INVALID_VALUE;
  const ErrorText* e = find_error(error);
  *text = e != nullptr ? e->name : nullptr;
  return e != nullptr ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

SIM_API cuGetErrorString(CUresult error, const char** text) {
  if (text == nullptr) return CUDA_ERROR_INVALID_VALUE;
  const ErrorText* e = find_error(error);
  *text = e != nullptr ? e->text : nullptr;
  return e != nullptr ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

SIM_API cuGetExportTable(const void** table, const CUuuid* id) {
  if (table == nullptr || id == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *table = nullptr;
  return CUDA_ERROR_NOT_FOUND;
}

// Why cuInit failed, in words; the command says them instead of a number.
SIM_EXPORT const char* allot_sim_problem(void) {
  return attach_problem();
}

SIM_EXPORT const char* allot_sim_version(void) {
  return "allot software GPU 0.1";
}
