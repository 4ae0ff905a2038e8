/* The driver's RM (resource manager) calls that allot makes or watches, as data.
 *
 * libcuda talks to the kernel module by ioctl(fd of /dev/nvidiactl, _IOWR('F', nr, structure)). Two
 * of these calls matter: alloc, by which a process makes its channel groups and channels and so
 * shows their handles, and control, which sets a group's timeslice and stops channels.
 * Numbers and layouts mirror NVIDIA's open-gpu-kernel-modules (the file is named at each block; the
 * branches in rm_branches.h), with the names there; the comments say what was seen on an H100.
 * Readable from C.
 *
 * Handles belong to a client: (client, subdevice, group, channels) must be kept together. A
 * control with handles of different clients returns 0x23, or 0 with no effect. */
#ifndef ALLOT_DRIVER_RM_ABI_H
#define ALLOT_DRIVER_RM_ABI_H

#include <stdint.h>

#include "driver/abi_assert.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef uint32_t NvHandle;

/* kernel-open/common/inc/nv-ioctl-numbers.h and src/nvidia/arch/nvalloc/unix/include/nv_escape.h.
 * The module reads number and size of a request only, not its direction bits. */
#define NV_IOCTL_MAGIC 'F'
#define NV_IOCTL_BASE 200
#define NV_ESC_CARD_INFO (NV_IOCTL_BASE + 0)
#define NV_ESC_REGISTER_FD (NV_IOCTL_BASE + 1)
#define NV_ESC_IOCTL_XFER_CMD (NV_IOCTL_BASE + 11) /* carries a structure too large for a request */
#define NV_ESC_RM_FREE 0x29
#define NV_ESC_RM_CONTROL 0x2A
#define NV_ESC_RM_ALLOC 0x2B
#define NV_ESC_RM_DUP_OBJECT 0x34

/* Parts of an ioctl request number: include/uapi/asm-generic/ioctl.h of Linux, x86-64. */
#define ALLOT_RM_REQUEST(nr, bytes) \
  ((3ul << 30) | ((unsigned long)(bytes) << 16) | ((unsigned long)NV_IOCTL_MAGIC << 8) | (nr))
#define ALLOT_RM_REQUEST_TYPE(request) (((request) >> 8) & 0xFFu)
#define ALLOT_RM_REQUEST_NR(request) ((request)&0xFFu)
#define ALLOT_RM_REQUEST_SIZE(request) (((request) >> 16) & 0x3FFFu)

/* src/common/sdk/nvidia/inc/nvos.h. NV_ESC_RM_ALLOC comes with either of two structures, told apart
 * by the size in the request; libcuda of 580 uses the long one. Pointers are 64-bit numbers. */
typedef struct {
  NvHandle hRoot; /* the client */
  NvHandle hObjectParent;
  NvHandle hObjectNew; /* in: the handle wanted, 0 = choose one; out: the handle made */
  uint32_t hClass;
  uint64_t pAllocParms;
  uint32_t paramsSize;
  uint32_t status; /* out: NV_OK or an NV_ERR */
} NVOS21_PARAMETERS;

typedef struct {
  NvHandle hRoot; /* the client */
  NvHandle hObjectParent;
  NvHandle hObjectNew; /* in: the handle wanted, 0 = choose one; out: the handle made */
  uint32_t hClass;
  uint64_t pAllocParms;
  uint64_t pRightsRequested;
  uint32_t paramsSize;
  uint32_t flags;
  uint32_t status; /* out: NV_OK or an NV_ERR */
} NVOS64_PARAMETERS;

typedef struct {
  NvHandle hClient;
  NvHandle hObject;
  uint32_t cmd;
  uint32_t flags;
  uint64_t params;
  uint32_t paramsSize;
  uint32_t status;   /* out */
} NVOS54_PARAMETERS; /* NV_ESC_RM_CONTROL */

typedef struct {
  NvHandle hRoot;
  NvHandle hObjectParent;
  NvHandle hObjectOld;
  uint32_t status;   /* out */
} NVOS00_PARAMETERS; /* NV_ESC_RM_FREE; freeing a parent frees what hangs below it */

/* src/common/sdk/nvidia/inc/class/cl0080.h; NV0080_ALLOC_PARAMETERS begins with the GPU number. */
typedef struct {
  uint32_t deviceId;
} NV0080_ALLOC_PARAMETERS_HEAD;

/* The first words of a channel group's parameters (NV_CHANNEL_GROUP_ALLOCATION_PARAMETERS, nvos.h,
 * the same in all of rm_branches.h). */
typedef struct {
  NvHandle hObjectError;
  NvHandle hObjectEccError;
  NvHandle hVASpace;
  uint32_t engineType; /* NV2080_ENGINE_TYPE_* */
} NV_CHANNEL_GROUP_ALLOCATION_PARAMETERS_HEAD;

/* class/cl2080_notification.h: the engines that run kernels, one or, with MIG, up to eight. */
#define NV2080_ENGINE_TYPE_GR0 0x00000001u
#define NV2080_ENGINE_TYPE_GR7 0x00000008u
#define NV2080_ENGINE_TYPE_COPY0 0x00000009u

ALLOT_ABI_SIZE(NVOS21_PARAMETERS, 32);
ALLOT_ABI_SIZE(NVOS64_PARAMETERS, 48);
ALLOT_ABI_OFFSET(NVOS64_PARAMETERS, pAllocParms, 16);
ALLOT_ABI_OFFSET(NVOS64_PARAMETERS, paramsSize, 32);
ALLOT_ABI_OFFSET(NVOS64_PARAMETERS, status, 40);
ALLOT_ABI_OFFSET(NV_CHANNEL_GROUP_ALLOCATION_PARAMETERS_HEAD, engineType, 12);
ALLOT_ABI_SIZE(NVOS54_PARAMETERS, 32);
ALLOT_ABI_OFFSET(NVOS54_PARAMETERS, params, 16);
ALLOT_ABI_OFFSET(NVOS54_PARAMETERS, paramsSize, 24);
ALLOT_ABI_OFFSET(NVOS54_PARAMETERS, status, 28);
ALLOT_ABI_SIZE(NVOS00_PARAMETERS, 16);

#define ALLOT_RM_ALLOC ALLOT_RM_REQUEST(NV_ESC_RM_ALLOC, sizeof(NVOS64_PARAMETERS))
#define ALLOT_RM_ALLOC_SHORT ALLOT_RM_REQUEST(NV_ESC_RM_ALLOC, sizeof(NVOS21_PARAMETERS))
#define ALLOT_RM_CONTROL ALLOT_RM_REQUEST(NV_ESC_RM_CONTROL, sizeof(NVOS54_PARAMETERS))
#define ALLOT_RM_FREE ALLOT_RM_REQUEST(NV_ESC_RM_FREE, sizeof(NVOS00_PARAMETERS))

ALLOT_ABI_ASSERT(ALLOT_RM_ALLOC == 0xC030462Bul, "request number of alloc");
ALLOT_ABI_ASSERT(ALLOT_RM_CONTROL == 0xC020462Aul, "request number of control");

/* src/common/sdk/nvidia/inc/nvstatuscodes.h: those seen on a GPU, or from the software GPU. */
#define NV_OK 0x00000000u
#define NV_ERR_INVALID_ARGUMENT 0x0000001Fu
#define NV_ERR_INVALID_CLIENT 0x00000023u
#define NV_ERR_INVALID_OBJECT_HANDLE 0x00000033u
#define NV_ERR_INVALID_OBJECT_PARENT 0x00000036u
#define NV_ERR_INVALID_PARAM_STRUCT 0x0000003Au
#define NV_ERR_NOT_SUPPORTED 0x00000056u
#define NV_ERR_OBJECT_NOT_FOUND 0x00000057u

/* src/common/sdk/nvidia/inc/class/cl0000.h, cl0080.h, cl2080.h, cla06c.h and cl*6f.h. */
#define NV01_ROOT 0x00000000u
#define NV01_ROOT_CLIENT 0x00000041u
#define NV01_DEVICE_0 0x00000080u
#define NV20_SUBDEVICE_0 0x00002080u
#define KEPLER_CHANNEL_GROUP_A 0x0000A06Cu
#define VOLTA_CHANNEL_GPFIFO_A 0x0000C36Fu
#define TURING_CHANNEL_GPFIFO_A 0x0000C46Fu
#define AMPERE_CHANNEL_GPFIFO_A 0x0000C56Fu /* Ada too */
#define HOPPER_CHANNEL_GPFIFO_A 0x0000C86Fu
#define BLACKWELL_CHANNEL_GPFIFO_A 0x0000C96Fu
#define BLACKWELL_CHANNEL_GPFIFO_B 0x0000CA6Fu

/* Every channel class of every generation ends so; the parent of a channel is its group. */
#define ALLOT_RM_IS_CHANNEL_CLASS(rm_class) (((rm_class)&0xFFFFF0FFu) == 0x0000C06Fu)

/* src/common/sdk/nvidia/inc/ctrl/ctrla06c.h, on a channel group. */
#define NVA06C_CTRL_CMD_GPFIFO_SCHEDULE 0xA06C0101u
#define NVA06C_CTRL_CMD_SET_TIMESLICE 0xA06C0103u
#define NVA06C_CTRL_CMD_GET_TIMESLICE 0xA06C0104u
#define NVA06C_CTRL_CMD_PREEMPT 0xA06C0105u
#define NVA06C_CTRL_CMD_GET_INFO 0xA06C0106u
#define NVA06C_CTRL_CMD_SET_INTERLEAVE_LEVEL 0xA06C0107u
#define NVA06C_CTRL_CMD_PREEMPT_MAX_MANUAL_TIMEOUT_US 1000000u

typedef struct {
  uint8_t bEnable; /* 0 is answered NV_OK and changes nothing, on an H100 */
  uint8_t bSkipSubmit;
  uint8_t bSkipEnable; /* not before 575: mind paramsSize */
} NVA06C_CTRL_GPFIFO_SCHEDULE_PARAMS;

typedef struct {
  uint64_t timesliceUs; /* 0 is accepted and is no suspend */
} NVA06C_CTRL_TIMESLICE_PARAMS;

typedef struct {
  uint8_t bWait;
  uint8_t bManualTimeout;
  uint32_t timeoutUs;
} NVA06C_CTRL_PREEMPT_PARAMS;

ALLOT_ABI_SIZE(NVA06C_CTRL_TIMESLICE_PARAMS, 8);
ALLOT_ABI_SIZE(NVA06C_CTRL_PREEMPT_PARAMS, 8);
ALLOT_ABI_OFFSET(NVA06C_CTRL_PREEMPT_PARAMS, timeoutUs, 4);

/* libcuda sets this on exactly one group of a context, the one that runs kernels; a context's other
 * groups are copy engines. Seen on driver 580 (H100): 4 groups, 8 channels. */
#define ALLOT_RM_LIBCUDA_TIMESLICE_US 2048u

/* src/common/sdk/nvidia/inc/ctrl/ctrl2080/ctrl2080fifo.h, on a subdevice. Stops channels mid-kernel
 * and resumes them; with bOnlyDisableScheduling the program hung. */
#define NV2080_CTRL_CMD_FIFO_DISABLE_CHANNELS 0x2080110Bu
#define NV2080_CTRL_FIFO_DISABLE_CHANNELS_MAX_ENTRIES 64

typedef struct {
  uint8_t bDisable;
  uint32_t numChannels; /* 1 to NV2080_CTRL_FIFO_DISABLE_CHANNELS_MAX_ENTRIES */
  uint8_t bOnlyDisableScheduling;
  uint8_t bRewindGpPut;
  uint64_t pRunlistPreemptEvent; /* 0: the call returns when the channels have stopped */
  NvHandle hClientList[NV2080_CTRL_FIFO_DISABLE_CHANNELS_MAX_ENTRIES];
  NvHandle hChannelList[NV2080_CTRL_FIFO_DISABLE_CHANNELS_MAX_ENTRIES];
} NV2080_CTRL_FIFO_DISABLE_CHANNELS_PARAMS;

ALLOT_ABI_SIZE(NV2080_CTRL_FIFO_DISABLE_CHANNELS_PARAMS, 536);
ALLOT_ABI_OFFSET(NV2080_CTRL_FIFO_DISABLE_CHANNELS_PARAMS, numChannels, 4);
ALLOT_ABI_OFFSET(NV2080_CTRL_FIFO_DISABLE_CHANNELS_PARAMS, bOnlyDisableScheduling, 8);
ALLOT_ABI_OFFSET(NV2080_CTRL_FIFO_DISABLE_CHANNELS_PARAMS, pRunlistPreemptEvent, 16);
ALLOT_ABI_OFFSET(NV2080_CTRL_FIFO_DISABLE_CHANNELS_PARAMS, hClientList, 24);
ALLOT_ABI_OFFSET(NV2080_CTRL_FIFO_DISABLE_CHANNELS_PARAMS, hChannelList, 280);

#ifdef __cplusplus
}
#endif

#endif
