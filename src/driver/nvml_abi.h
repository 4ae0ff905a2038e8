/* The NVML ABI as far as the shim, the software GPU and the commands use it.
 *
 * Our own declarations of outside facts: names, numbers and layouts of nvml.h of CUDA 13.0
 * (NVML_API_VERSION 13). Structures that carry a version word expect ALLOT_NVML_VERSION(type, n) in
 * it, which holds the structure's size and its number. Readable from C. Include this or the
 * vendor's nvml.h, never both in one translation unit. */
#ifndef ALLOT_DRIVER_NVML_ABI_H
#define ALLOT_DRIVER_NVML_ABI_H

#include "driver/abi_assert.h"

#ifdef __cplusplus
extern "C" {
#endif

#define ALLOT_NVML_ABI_VERSION 13 /* NVML_API_VERSION of the header mirrored */

/* The version word of a versioned structure: bytes in the low 24 bits, number above. */
#define ALLOT_NVML_VERSION(type, number) ((unsigned)(sizeof(type) | ((unsigned)(number) << 24)))

#define NVML_BUS_TYPE_AGP 4
#define NVML_BUS_TYPE_FPCI 3
#define NVML_BUS_TYPE_PCI 1
#define NVML_BUS_TYPE_PCIE 2
#define NVML_BUS_TYPE_UNKNOWN 0
#define NVML_DEVICE_ARCH_ADA 8
#define NVML_DEVICE_ARCH_AMPERE 7
#define NVML_DEVICE_ARCH_BLACKWELL 10
#define NVML_DEVICE_ARCH_HOPPER 9
#define NVML_DEVICE_ARCH_KEPLER 2
#define NVML_DEVICE_ARCH_MAXWELL 3
#define NVML_DEVICE_ARCH_PASCAL 4
#define NVML_DEVICE_ARCH_TURING 6
#define NVML_DEVICE_ARCH_UNKNOWN 0xffffffff
#define NVML_DEVICE_ARCH_VOLTA 5
#define NVML_DEVICE_INFOROM_VERSION_BUFFER_SIZE 16
#define NVML_DEVICE_MIG_DISABLE 0x0
#define NVML_DEVICE_MIG_ENABLE 0x1
#define NVML_DEVICE_NAME_BUFFER_SIZE 64
#define NVML_DEVICE_NAME_V2_BUFFER_SIZE 96
#define NVML_DEVICE_PART_NUMBER_BUFFER_SIZE 80
#define NVML_DEVICE_PCI_BUS_ID_BUFFER_SIZE 32
#define NVML_DEVICE_PCI_BUS_ID_BUFFER_V2_SIZE 16
#define NVML_DEVICE_PCI_BUS_ID_FMT "%08X:%02X:%02X.0"
#define NVML_DEVICE_PCI_BUS_ID_LEGACY_FMT "%04X:%02X:%02X.0"
#define NVML_DEVICE_SERIAL_BUFFER_SIZE 30
#define NVML_DEVICE_UUID_ASCII_LEN 41
#define NVML_DEVICE_UUID_BINARY_LEN 16
#define NVML_DEVICE_UUID_BUFFER_SIZE 80
#define NVML_DEVICE_UUID_V2_BUFFER_SIZE 96
#define NVML_DEVICE_VBIOS_VERSION_BUFFER_SIZE 32
#define NVML_FI_DEV_MEMORY_TEMP 82
#define NVML_FI_DEV_POWER_AVERAGE 185
#define NVML_FI_DEV_POWER_CURRENT_LIMIT 190
#define NVML_FI_DEV_POWER_DEFAULT_LIMIT 189
#define NVML_FI_DEV_POWER_INSTANT 186
#define NVML_FI_DEV_POWER_MAX_LIMIT 188
#define NVML_FI_DEV_POWER_MIN_LIMIT 187
#define NVML_FI_DEV_POWER_REQUESTED_LIMIT 192
#define NVML_FI_DEV_POWER_SYNC_BALANCING_AF 273
#define NVML_FI_DEV_POWER_SYNC_BALANCING_FREQ 272
#define NVML_FI_DEV_TEMPERATURE_GPU_MAX_TLIMIT 196
#define NVML_FI_DEV_TEMPERATURE_MEM_MAX_TLIMIT 195
#define NVML_FI_DEV_TEMPERATURE_SHUTDOWN_TLIMIT 193
#define NVML_FI_DEV_TEMPERATURE_SLOWDOWN_TLIMIT 194
#define NVML_FI_DEV_TOTAL_ENERGY_CONSUMPTION 83
#define NVML_FI_MAX 274
#define NVML_GPU_FABRIC_UUID_LEN 16
#define NVML_INIT_FLAG_NO_ATTACH 2
#define NVML_INIT_FLAG_NO_GPUS 1
#define NVML_MAX_PHYSICAL_BRIDGE (128)
#define NVML_POWER_SOURCE_AC 0x00000000
#define NVML_POWER_SOURCE_BATTERY 0x00000001
#define NVML_POWER_SOURCE_UNDERSIZED 0x00000002
#define NVML_SYSTEM_DRIVER_VERSION_BUFFER_SIZE 80
#define NVML_SYSTEM_NVML_VERSION_BUFFER_SIZE 80
#define NVML_VALUE_NOT_AVAILABLE (-1)

typedef struct nvmlDevice_st* nvmlDevice_t;
typedef struct nvmlGpuInstance_st* nvmlGpuInstance_t;

typedef struct {
  unsigned version, domain, bus, device, pciDeviceId, pciSubSystemId, baseClass, subClass;
  char busId[32];
} nvmlPciInfoExt_v1_t;

typedef struct nvmlPciInfo_st {
  char busIdLegacy[16];
  unsigned domain, bus, device, pciDeviceId, pciSubSystemId;
  char busId[32];
} nvmlPciInfo_t;

typedef struct nvmlEccErrorCounts_st {
  unsigned long long l1Cache, l2Cache, deviceMemory, registerFile;
} nvmlEccErrorCounts_t;

typedef struct nvmlUtilization_st {
  unsigned gpu, memory;
} nvmlUtilization_t;

typedef struct nvmlMemory_st {
  unsigned long long total, free, used;
} nvmlMemory_t;

typedef struct nvmlMemory_v2_st {
  unsigned version;
  unsigned long long total, reserved, free, used;
} nvmlMemory_v2_t;

typedef struct nvmlBAR1Memory_st {
  unsigned long long bar1Total, bar1Free, bar1Used;
} nvmlBAR1Memory_t;

typedef struct nvmlProcessInfo_v1_st {
  unsigned pid;
  unsigned long long usedGpuMemory;
} nvmlProcessInfo_v1_t;

typedef struct nvmlProcessInfo_v2_st {
  unsigned pid;
  unsigned long long usedGpuMemory;
  unsigned gpuInstanceId, computeInstanceId;
} nvmlProcessInfo_v2_t;
typedef nvmlProcessInfo_v2_t nvmlProcessInfo_t;

typedef struct {
  unsigned pid;
  unsigned long long usedGpuMemory;
  unsigned gpuInstanceId, computeInstanceId;
  unsigned long long usedGpuCcProtectedMemory;
} nvmlProcessDetail_v1_t;

typedef struct {
  unsigned version, mode, numProcArrayEntries;
  nvmlProcessDetail_v1_t* procArray;
} nvmlProcessDetailList_v1_t;
typedef nvmlProcessDetailList_v1_t nvmlProcessDetailList_t;

typedef struct nvmlDeviceAttributes_st {
  unsigned multiprocessorCount, sharedCopyEngineCount, sharedDecoderCount, sharedEncoderCount;
  unsigned sharedJpegCount, sharedOfaCount, gpuInstanceSliceCount, computeInstanceSliceCount;
  unsigned long long memorySizeMB;
} nvmlDeviceAttributes_t;

typedef struct {
  unsigned isC2cEnabled;
} nvmlC2cModeInfo_v1_t;

typedef enum {
  NVML_DEVICE_ADDRESSING_MODE_NONE = 0,
  NVML_DEVICE_ADDRESSING_MODE_HMM = 1,
  NVML_DEVICE_ADDRESSING_MODE_ATS = 2,
} nvmlDeviceAddressingModeType_t;

typedef struct {
  unsigned version, value;
} nvmlDeviceAddressingMode_v1_t;

typedef struct nvmlRowRemapperHistogramValues_st {
  unsigned max, high, partial, low, none;
} nvmlRowRemapperHistogramValues_t;

typedef enum nvmlBridgeChipType_enum {
  NVML_BRIDGE_CHIP_PLX = 0,
  NVML_BRIDGE_CHIP_BRO4 = 1,
} nvmlBridgeChipType_t;

typedef enum nvmlNvLinkCapability_enum {
  NVML_NVLINK_CAP_P2P_SUPPORTED = 0,
  NVML_NVLINK_CAP_SYSMEM_ACCESS = 1,
  NVML_NVLINK_CAP_P2P_ATOMICS = 2,
  NVML_NVLINK_CAP_SYSMEM_ATOMICS = 3,
  NVML_NVLINK_CAP_SLI_BRIDGE = 4,
  NVML_NVLINK_CAP_VALID = 5,
  NVML_NVLINK_CAP_COUNT = 6,
} nvmlNvLinkCapability_t;

typedef enum nvmlGpuLevel_enum {
  NVML_TOPOLOGY_INTERNAL = 0,
  NVML_TOPOLOGY_SINGLE = 10,
  NVML_TOPOLOGY_MULTIPLE = 20,
  NVML_TOPOLOGY_HOSTBRIDGE = 30,
  NVML_TOPOLOGY_NODE = 40,
  NVML_TOPOLOGY_SYSTEM = 50,
} nvmlGpuTopologyLevel_t;

typedef enum nvmlGpuP2PStatus_enum {
  NVML_P2P_STATUS_OK = 0,
  NVML_P2P_STATUS_CHIPSET_NOT_SUPPORED = 1,
  NVML_P2P_STATUS_CHIPSET_NOT_SUPPORTED = 1,
  NVML_P2P_STATUS_GPU_NOT_SUPPORTED = 2,
  NVML_P2P_STATUS_IOH_TOPOLOGY_NOT_SUPPORTED = 3,
  NVML_P2P_STATUS_DISABLED_BY_REGKEY = 4,
  NVML_P2P_STATUS_NOT_SUPPORTED = 5,
  NVML_P2P_STATUS_UNKNOWN = 6,
} nvmlGpuP2PStatus_t;

typedef enum nvmlGpuP2PCapsIndex_enum {
  NVML_P2P_CAPS_INDEX_READ = 0,
  NVML_P2P_CAPS_INDEX_WRITE = 1,
  NVML_P2P_CAPS_INDEX_NVLINK = 2,
  NVML_P2P_CAPS_INDEX_ATOMICS = 3,
  NVML_P2P_CAPS_INDEX_PCI = 4,
  NVML_P2P_CAPS_INDEX_PROP = 4,
  NVML_P2P_CAPS_INDEX_UNKNOWN = 5,
} nvmlGpuP2PCapsIndex_t;

typedef struct nvmlBridgeChipInfo_st {
  nvmlBridgeChipType_t type;
  unsigned fwVersion;
} nvmlBridgeChipInfo_t;

typedef struct nvmlBridgeChipHierarchy_st {
  unsigned char bridgeCount;
  nvmlBridgeChipInfo_t bridgeChipInfo[128];
} nvmlBridgeChipHierarchy_t;

typedef enum nvmlSamplingType_enum {
  NVML_TOTAL_POWER_SAMPLES = 0,
  NVML_GPU_UTILIZATION_SAMPLES = 1,
  NVML_MEMORY_UTILIZATION_SAMPLES = 2,
  NVML_ENC_UTILIZATION_SAMPLES = 3,
  NVML_DEC_UTILIZATION_SAMPLES = 4,
  NVML_PROCESSOR_CLK_SAMPLES = 5,
  NVML_MEMORY_CLK_SAMPLES = 6,
  NVML_MODULE_POWER_SAMPLES = 7,
  NVML_JPG_UTILIZATION_SAMPLES = 8,
  NVML_OFA_UTILIZATION_SAMPLES = 9,
  NVML_SAMPLINGTYPE_COUNT = 10,
} nvmlSamplingType_t;

typedef enum nvmlPcieUtilCounter_enum {
  NVML_PCIE_UTIL_TX_BYTES = 0,
  NVML_PCIE_UTIL_RX_BYTES = 1,
  NVML_PCIE_UTIL_COUNT = 2,
} nvmlPcieUtilCounter_t;

typedef enum nvmlValueType_enum {
  NVML_VALUE_TYPE_DOUBLE = 0,
  NVML_VALUE_TYPE_UNSIGNED_INT = 1,
  NVML_VALUE_TYPE_UNSIGNED_LONG = 2,
  NVML_VALUE_TYPE_UNSIGNED_LONG_LONG = 3,
  NVML_VALUE_TYPE_SIGNED_LONG_LONG = 4,
  NVML_VALUE_TYPE_SIGNED_INT = 5,
  NVML_VALUE_TYPE_UNSIGNED_SHORT = 6,
  NVML_VALUE_TYPE_COUNT = 7,
} nvmlValueType_t;

typedef union nvmlValue_st {
  double dVal;
  int siVal;
  unsigned uiVal;
  unsigned long ulVal;
  unsigned long long ullVal;
  long long sllVal;
  unsigned short usVal;
} nvmlValue_t;

typedef struct nvmlSample_st {
  unsigned long long timeStamp;
  nvmlValue_t sampleValue;
} nvmlSample_t;

typedef enum nvmlPerfPolicyType_enum {
  NVML_PERF_POLICY_POWER = 0,
  NVML_PERF_POLICY_THERMAL = 1,
  NVML_PERF_POLICY_SYNC_BOOST = 2,
  NVML_PERF_POLICY_BOARD_LIMIT = 3,
  NVML_PERF_POLICY_LOW_UTILIZATION = 4,
  NVML_PERF_POLICY_RELIABILITY = 5,
  NVML_PERF_POLICY_TOTAL_APP_CLOCKS = 10,
  NVML_PERF_POLICY_TOTAL_BASE_CLOCKS = 11,
  NVML_PERF_POLICY_COUNT = 12,
} nvmlPerfPolicyType_t;

typedef struct nvmlViolationTime_st {
  unsigned long long referenceTime, violationTime;
} nvmlViolationTime_t;

typedef enum {
  NVML_UUID_TYPE_NONE = 0,
  NVML_UUID_TYPE_ASCII = 1,
  NVML_UUID_TYPE_BINARY = 2,
} nvmlUUIDType_t;

typedef union {
  char str[41];
  unsigned char bytes[16];
} nvmlUUIDValue_t;

typedef struct {
  unsigned version, type;
  nvmlUUIDValue_t value;
} nvmlUUID_v1_t;
typedef nvmlUUID_v1_t nvmlUUID_t;

typedef enum nvmlEnableState_enum {
  NVML_FEATURE_DISABLED = 0,
  NVML_FEATURE_ENABLED = 1,
} nvmlEnableState_t;

typedef enum nvmlBrandType_enum {
  NVML_BRAND_UNKNOWN = 0,
  NVML_BRAND_QUADRO = 1,
  NVML_BRAND_TESLA = 2,
  NVML_BRAND_NVS = 3,
  NVML_BRAND_GRID = 4,
  NVML_BRAND_GEFORCE = 5,
  NVML_BRAND_TITAN = 6,
  NVML_BRAND_NVIDIA_VAPPS = 7,
  NVML_BRAND_NVIDIA_VPC = 8,
  NVML_BRAND_NVIDIA_VCS = 9,
  NVML_BRAND_NVIDIA_VWS = 10,
  NVML_BRAND_NVIDIA_CLOUD_GAMING = 11,
  NVML_BRAND_NVIDIA_VGAMING = 11,
  NVML_BRAND_QUADRO_RTX = 12,
  NVML_BRAND_NVIDIA_RTX = 13,
  NVML_BRAND_NVIDIA = 14,
  NVML_BRAND_GEFORCE_RTX = 15,
  NVML_BRAND_TITAN_RTX = 16,
  NVML_BRAND_COUNT = 18,
} nvmlBrandType_t;

typedef enum nvmlTemperatureThresholds_enum {
  NVML_TEMPERATURE_THRESHOLD_SHUTDOWN = 0,
  NVML_TEMPERATURE_THRESHOLD_SLOWDOWN = 1,
  NVML_TEMPERATURE_THRESHOLD_MEM_MAX = 2,
  NVML_TEMPERATURE_THRESHOLD_GPU_MAX = 3,
  NVML_TEMPERATURE_THRESHOLD_ACOUSTIC_MIN = 4,
  NVML_TEMPERATURE_THRESHOLD_ACOUSTIC_CURR = 5,
  NVML_TEMPERATURE_THRESHOLD_ACOUSTIC_MAX = 6,
  NVML_TEMPERATURE_THRESHOLD_GPS_CURR = 7,
  NVML_TEMPERATURE_THRESHOLD_COUNT = 8,
} nvmlTemperatureThresholds_t;

typedef enum nvmlTemperatureSensors_enum {
  NVML_TEMPERATURE_GPU = 0,
  NVML_TEMPERATURE_COUNT = 1,
} nvmlTemperatureSensors_t;

typedef struct {
  unsigned version;
  int marginTemperature;
} nvmlMarginTemperature_v1_t;

typedef enum nvmlComputeMode_enum {
  NVML_COMPUTEMODE_DEFAULT = 0,
  NVML_COMPUTEMODE_EXCLUSIVE_THREAD = 1,
  NVML_COMPUTEMODE_PROHIBITED = 2,
  NVML_COMPUTEMODE_EXCLUSIVE_PROCESS = 3,
  NVML_COMPUTEMODE_COUNT = 4,
} nvmlComputeMode_t;

typedef enum nvmlMemoryErrorType_enum {
  NVML_MEMORY_ERROR_TYPE_CORRECTED = 0,
  NVML_MEMORY_ERROR_TYPE_UNCORRECTED = 1,
  NVML_MEMORY_ERROR_TYPE_COUNT = 2,
} nvmlMemoryErrorType_t;

typedef enum nvmlEccCounterType_enum {
  NVML_VOLATILE_ECC = 0,
  NVML_AGGREGATE_ECC = 1,
  NVML_ECC_COUNTER_TYPE_COUNT = 2,
} nvmlEccCounterType_t;

typedef enum nvmlClockType_enum {
  NVML_CLOCK_GRAPHICS = 0,
  NVML_CLOCK_SM = 1,
  NVML_CLOCK_MEM = 2,
  NVML_CLOCK_VIDEO = 3,
  NVML_CLOCK_COUNT = 4,
} nvmlClockType_t;

typedef enum nvmlClockId_enum {
  NVML_CLOCK_ID_CURRENT = 0,
  NVML_CLOCK_ID_APP_CLOCK_TARGET = 1,
  NVML_CLOCK_ID_APP_CLOCK_DEFAULT = 2,
  NVML_CLOCK_ID_CUSTOMER_BOOST_MAX = 3,
  NVML_CLOCK_ID_COUNT = 4,
} nvmlClockId_t;

typedef enum nvmlDriverModel_enum {
  NVML_DRIVER_WDDM = 0,
  NVML_DRIVER_WDM = 1,
  NVML_DRIVER_MCDM = 2,
} nvmlDriverModel_t;

typedef enum nvmlPStates_enum {
  NVML_PSTATE_0 = 0,
  NVML_PSTATE_1 = 1,
  NVML_PSTATE_2 = 2,
  NVML_PSTATE_3 = 3,
  NVML_PSTATE_4 = 4,
  NVML_PSTATE_5 = 5,
  NVML_PSTATE_6 = 6,
  NVML_PSTATE_7 = 7,
  NVML_PSTATE_8 = 8,
  NVML_PSTATE_9 = 9,
  NVML_PSTATE_10 = 10,
  NVML_PSTATE_11 = 11,
  NVML_PSTATE_12 = 12,
  NVML_PSTATE_13 = 13,
  NVML_PSTATE_14 = 14,
  NVML_PSTATE_15 = 15,
  NVML_PSTATE_UNKNOWN = 32,
} nvmlPstates_t;

typedef enum nvmlGom_enum {
  NVML_GOM_ALL_ON = 0,
  NVML_GOM_COMPUTE = 1,
  NVML_GOM_LOW_DP = 2,
} nvmlGpuOperationMode_t;

typedef enum nvmlInforomObject_enum {
  NVML_INFOROM_OEM = 0,
  NVML_INFOROM_ECC = 1,
  NVML_INFOROM_POWER = 2,
  NVML_INFOROM_DEN = 3,
  NVML_INFOROM_COUNT = 4,
} nvmlInforomObject_t;

typedef enum nvmlReturn_enum {
  NVML_SUCCESS = 0,
  NVML_ERROR_UNINITIALIZED = 1,
  NVML_ERROR_INVALID_ARGUMENT = 2,
  NVML_ERROR_NOT_SUPPORTED = 3,
  NVML_ERROR_NO_PERMISSION = 4,
  NVML_ERROR_ALREADY_INITIALIZED = 5,
  NVML_ERROR_NOT_FOUND = 6,
  NVML_ERROR_INSUFFICIENT_SIZE = 7,
  NVML_ERROR_INSUFFICIENT_POWER = 8,
  NVML_ERROR_DRIVER_NOT_LOADED = 9,
  NVML_ERROR_TIMEOUT = 10,
  NVML_ERROR_IRQ_ISSUE = 11,
  NVML_ERROR_LIBRARY_NOT_FOUND = 12,
  NVML_ERROR_FUNCTION_NOT_FOUND = 13,
  NVML_ERROR_CORRUPTED_INFOROM = 14,
  NVML_ERROR_GPU_IS_LOST = 15,
  NVML_ERROR_RESET_REQUIRED = 16,
  NVML_ERROR_OPERATING_SYSTEM = 17,
  NVML_ERROR_LIB_RM_VERSION_MISMATCH = 18,
  NVML_ERROR_IN_USE = 19,
  NVML_ERROR_MEMORY = 20,
  NVML_ERROR_NO_DATA = 21,
  NVML_ERROR_VGPU_ECC_NOT_SUPPORTED = 22,
  NVML_ERROR_INSUFFICIENT_RESOURCES = 23,
  NVML_ERROR_FREQ_NOT_SUPPORTED = 24,
  NVML_ERROR_ARGUMENT_VERSION_MISMATCH = 25,
  NVML_ERROR_DEPRECATED = 26,
  NVML_ERROR_NOT_READY = 27,
  NVML_ERROR_GPU_NOT_FOUND = 28,
  NVML_ERROR_INVALID_STATE = 29,
  NVML_ERROR_RESET_TYPE_NOT_SUPPORTED = 30,
  NVML_ERROR_UNKNOWN = 999,
} nvmlReturn_t;

typedef enum nvmlPageRetirementCause_enum {
  NVML_PAGE_RETIREMENT_CAUSE_MULTIPLE_SINGLE_BIT_ECC_ERRORS = 0,
  NVML_PAGE_RETIREMENT_CAUSE_DOUBLE_BIT_ECC_ERROR = 1,
  NVML_PAGE_RETIREMENT_CAUSE_COUNT = 2,
} nvmlPageRetirementCause_t;

typedef enum nvmlRestrictedAPI_enum {
  NVML_RESTRICTED_API_SET_APPLICATION_CLOCKS = 0,
  NVML_RESTRICTED_API_SET_AUTO_BOOSTED_CLOCKS = 1,
  NVML_RESTRICTED_API_COUNT = 2,
} nvmlRestrictedAPI_t;

typedef struct nvmlProcessUtilizationSample_st {
  unsigned pid;
  unsigned long long timeStamp;
  unsigned smUtil, memUtil, encUtil, decUtil;
} nvmlProcessUtilizationSample_t;

typedef struct {
  unsigned long long timeStamp;
  unsigned pid, smUtil, memUtil, encUtil, decUtil, jpgUtil, ofaUtil;
} nvmlProcessUtilizationInfo_v1_t;

typedef struct {
  unsigned version, processSamplesCount;
  unsigned long long lastSeenTimeStamp;
  nvmlProcessUtilizationInfo_v1_t* procUtilArray;
} nvmlProcessesUtilizationInfo_v1_t;
typedef nvmlProcessesUtilizationInfo_v1_t nvmlProcessesUtilizationInfo_t;

typedef unsigned nvmlDeviceArchitecture_t;
typedef unsigned nvmlBusType_t;
typedef unsigned nvmlPowerSource_t;

typedef enum nvmlGpuVirtualizationMode {
  NVML_GPU_VIRTUALIZATION_MODE_NONE = 0,
  NVML_GPU_VIRTUALIZATION_MODE_PASSTHROUGH = 1,
  NVML_GPU_VIRTUALIZATION_MODE_VGPU = 2,
  NVML_GPU_VIRTUALIZATION_MODE_HOST_VGPU = 3,
  NVML_GPU_VIRTUALIZATION_MODE_HOST_VSGA = 4,
} nvmlGpuVirtualizationMode_t;

typedef unsigned nvmlVgpuTypeId_t;
typedef unsigned nvmlVgpuInstance_t;

typedef struct nvmlFieldValue_st {
  unsigned fieldId, scopeId;
  long long timestamp, latencyUsec;
  nvmlValueType_t valueType;
  nvmlReturn_t nvmlReturn;
  nvmlValue_t value;
} nvmlFieldValue_t;

typedef struct nvmlUnit_st* nvmlUnit_t;

typedef enum nvmlFanState_enum {
  NVML_FAN_NORMAL = 0,
  NVML_FAN_FAILED = 1,
} nvmlFanState_t;

typedef struct nvmlEventSet_st* nvmlEventSet_t;

typedef struct nvmlEventData_st {
  nvmlDevice_t device;
  unsigned long long eventType, eventData;
  unsigned gpuInstanceId, computeInstanceId;
} nvmlEventData_t;

typedef struct nvmlAccountingStats_st {
  unsigned gpuUtilization, memoryUtilization;
  unsigned long long maxMemoryUsage, time, startTime;
  unsigned isRunning;
  unsigned reserved[5];
} nvmlAccountingStats_t;

typedef struct nvmlConfComputeSystemState_st {
  unsigned environment, ccFeature, devToolsMode;
} nvmlConfComputeSystemState_t;

typedef struct {
  unsigned version, environment, ccFeature, devToolsMode, multiGpuMode;
} nvmlSystemConfComputeSettings_v1_t;

typedef struct nvmlConfComputeMemSizeInfo_st {
  unsigned long long protectedMemSizeKib, unprotectedMemSizeKib;
} nvmlConfComputeMemSizeInfo_t;

typedef struct {
  unsigned version;
  nvmlTemperatureSensors_t sensorType;
  int temperature;
} nvmlTemperature_v1_t;

typedef struct nvmlGpuInstancePlacement_st {
  unsigned start, size;
} nvmlGpuInstancePlacement_t;

typedef struct nvmlGpuInstanceInfo_st {
  nvmlDevice_t device;
  unsigned id, profileId;
  nvmlGpuInstancePlacement_t placement;
} nvmlGpuInstanceInfo_t;

typedef struct nvmlComputeInstancePlacement_st {
  unsigned start, size;
} nvmlComputeInstancePlacement_t;

typedef struct nvmlComputeInstanceInfo_st {
  nvmlDevice_t device;
  nvmlGpuInstance_t gpuInstance;
  unsigned id, profileId;
  nvmlComputeInstancePlacement_t placement;
} nvmlComputeInstanceInfo_t;

typedef struct nvmlComputeInstance_st* nvmlComputeInstance_t;

typedef struct {
  unsigned version, capMask;
} nvmlDeviceCapabilities_v1_t;

typedef struct {
  unsigned mask[8];
} nvmlMask255_t;

#define nvmlC2cModeInfo_v1 ALLOT_NVML_VERSION(nvmlC2cModeInfo_v1_t, 1)
#define nvmlDeviceAddressingMode_v1 ALLOT_NVML_VERSION(nvmlDeviceAddressingMode_v1_t, 1)
#define nvmlDeviceCapabilities_v1 ALLOT_NVML_VERSION(nvmlDeviceCapabilities_v1_t, 1)
#define nvmlMarginTemperature_v1 ALLOT_NVML_VERSION(nvmlMarginTemperature_v1_t, 1)
#define nvmlMemory_v2 ALLOT_NVML_VERSION(nvmlMemory_v2_t, 2)
#define nvmlPciInfoExt_v1 ALLOT_NVML_VERSION(nvmlPciInfoExt_v1_t, 1)
#define nvmlProcessDetailList_v1 ALLOT_NVML_VERSION(nvmlProcessDetailList_v1_t, 1)
#define nvmlProcessesUtilizationInfo_v1 ALLOT_NVML_VERSION(nvmlProcessesUtilizationInfo_v1_t, 1)
#define nvmlSystemConfComputeSettings_v1 ALLOT_NVML_VERSION(nvmlSystemConfComputeSettings_v1_t, 1)
#define nvmlTemperature_v1 ALLOT_NVML_VERSION(nvmlTemperature_v1_t, 1)
#define nvmlUUID_v1 ALLOT_NVML_VERSION(nvmlUUID_v1_t, 1)

ALLOT_ABI_SIZE(nvmlPciInfoExt_v1_t, 64);
ALLOT_ABI_OFFSET(nvmlPciInfoExt_v1_t, busId, 32);
ALLOT_ABI_SIZE(nvmlPciInfo_t, 68);
ALLOT_ABI_OFFSET(nvmlPciInfo_t, busId, 36);
ALLOT_ABI_SIZE(nvmlEccErrorCounts_t, 32);
ALLOT_ABI_OFFSET(nvmlEccErrorCounts_t, registerFile, 24);
ALLOT_ABI_SIZE(nvmlUtilization_t, 8);
ALLOT_ABI_SIZE(nvmlMemory_t, 24);
ALLOT_ABI_OFFSET(nvmlMemory_t, used, 16);
ALLOT_ABI_SIZE(nvmlMemory_v2_t, 40);
ALLOT_ABI_OFFSET(nvmlMemory_v2_t, used, 32);
ALLOT_ABI_SIZE(nvmlBAR1Memory_t, 24);
ALLOT_ABI_OFFSET(nvmlBAR1Memory_t, bar1Used, 16);
ALLOT_ABI_SIZE(nvmlProcessInfo_v1_t, 16);
ALLOT_ABI_SIZE(nvmlProcessInfo_v2_t, 24);
ALLOT_ABI_OFFSET(nvmlProcessInfo_v2_t, computeInstanceId, 20);
ALLOT_ABI_SIZE(nvmlProcessDetail_v1_t, 32);
ALLOT_ABI_OFFSET(nvmlProcessDetail_v1_t, usedGpuCcProtectedMemory, 24);
ALLOT_ABI_SIZE(nvmlProcessDetailList_v1_t, 24);
ALLOT_ABI_OFFSET(nvmlProcessDetailList_v1_t, procArray, 16);
ALLOT_ABI_SIZE(nvmlDeviceAttributes_t, 40);
ALLOT_ABI_OFFSET(nvmlDeviceAttributes_t, memorySizeMB, 32);
ALLOT_ABI_SIZE(nvmlC2cModeInfo_v1_t, 4);
ALLOT_ABI_SIZE(nvmlDeviceAddressingMode_v1_t, 8);
ALLOT_ABI_SIZE(nvmlRowRemapperHistogramValues_t, 20);
ALLOT_ABI_OFFSET(nvmlRowRemapperHistogramValues_t, none, 16);
ALLOT_ABI_SIZE(nvmlBridgeChipInfo_t, 8);
ALLOT_ABI_SIZE(nvmlBridgeChipHierarchy_t, 1028);
ALLOT_ABI_SIZE(nvmlValue_t, 8);
ALLOT_ABI_OFFSET(nvmlValue_t, usVal, 0);
ALLOT_ABI_SIZE(nvmlSample_t, 16);
ALLOT_ABI_SIZE(nvmlViolationTime_t, 16);
ALLOT_ABI_SIZE(nvmlUUIDValue_t, 41);
ALLOT_ABI_SIZE(nvmlUUID_v1_t, 52);
ALLOT_ABI_OFFSET(nvmlUUID_v1_t, value, 8);
ALLOT_ABI_SIZE(nvmlMarginTemperature_v1_t, 8);
ALLOT_ABI_SIZE(nvmlProcessUtilizationSample_t, 32);
ALLOT_ABI_OFFSET(nvmlProcessUtilizationSample_t, decUtil, 28);
ALLOT_ABI_SIZE(nvmlProcessUtilizationInfo_v1_t, 40);
ALLOT_ABI_OFFSET(nvmlProcessUtilizationInfo_v1_t, ofaUtil, 32);
ALLOT_ABI_SIZE(nvmlProcessesUtilizationInfo_v1_t, 24);
ALLOT_ABI_OFFSET(nvmlProcessesUtilizationInfo_v1_t, procUtilArray, 16);
ALLOT_ABI_SIZE(nvmlFieldValue_t, 40);
ALLOT_ABI_OFFSET(nvmlFieldValue_t, value, 32);
ALLOT_ABI_SIZE(nvmlEventData_t, 32);
ALLOT_ABI_OFFSET(nvmlEventData_t, computeInstanceId, 28);
ALLOT_ABI_SIZE(nvmlAccountingStats_t, 56);
ALLOT_ABI_OFFSET(nvmlAccountingStats_t, reserved, 36);
ALLOT_ABI_SIZE(nvmlConfComputeSystemState_t, 12);
ALLOT_ABI_OFFSET(nvmlConfComputeSystemState_t, devToolsMode, 8);
ALLOT_ABI_SIZE(nvmlSystemConfComputeSettings_v1_t, 20);
ALLOT_ABI_OFFSET(nvmlSystemConfComputeSettings_v1_t, multiGpuMode, 16);
ALLOT_ABI_SIZE(nvmlConfComputeMemSizeInfo_t, 16);
ALLOT_ABI_SIZE(nvmlTemperature_v1_t, 12);
ALLOT_ABI_OFFSET(nvmlTemperature_v1_t, temperature, 8);
ALLOT_ABI_SIZE(nvmlGpuInstancePlacement_t, 8);
ALLOT_ABI_SIZE(nvmlGpuInstanceInfo_t, 24);
ALLOT_ABI_OFFSET(nvmlGpuInstanceInfo_t, placement, 16);
ALLOT_ABI_SIZE(nvmlComputeInstancePlacement_t, 8);
ALLOT_ABI_SIZE(nvmlComputeInstanceInfo_t, 32);
ALLOT_ABI_OFFSET(nvmlComputeInstanceInfo_t, placement, 24);
ALLOT_ABI_SIZE(nvmlDeviceCapabilities_v1_t, 8);
ALLOT_ABI_SIZE(nvmlMask255_t, 32);
ALLOT_ABI_ASSERT(nvmlC2cModeInfo_v1 == 0x1000004, "nvmlC2cModeInfo_v1 has another value");
ALLOT_ABI_ASSERT(nvmlDeviceAddressingMode_v1 == 0x1000008,
                 "nvmlDeviceAddressingMode_v1 has another value");
ALLOT_ABI_ASSERT(nvmlDeviceCapabilities_v1 == 0x1000008,
                 "nvmlDeviceCapabilities_v1 has another value");
ALLOT_ABI_ASSERT(nvmlMarginTemperature_v1 == 0x1000008,
                 "nvmlMarginTemperature_v1 has another value");
ALLOT_ABI_ASSERT(nvmlMemory_v2 == 0x2000028, "nvmlMemory_v2 has another value");
ALLOT_ABI_ASSERT(nvmlPciInfoExt_v1 == 0x1000040, "nvmlPciInfoExt_v1 has another value");
ALLOT_ABI_ASSERT(nvmlProcessDetailList_v1 == 0x1000018,
                 "nvmlProcessDetailList_v1 has another value");
ALLOT_ABI_ASSERT(nvmlProcessesUtilizationInfo_v1 == 0x1000018,
                 "nvmlProcessesUtilizationInfo_v1 has another value");
ALLOT_ABI_ASSERT(nvmlSystemConfComputeSettings_v1 == 0x1000014,
                 "nvmlSystemConfComputeSettings_v1 has another value");
ALLOT_ABI_ASSERT(nvmlTemperature_v1 == 0x100000c, "nvmlTemperature_v1 has another value");
ALLOT_ABI_ASSERT(nvmlUUID_v1 == 0x1000034, "nvmlUUID_v1 has another value");

#ifdef __cplusplus
}
#endif

#endif
