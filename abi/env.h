/* Names of the environment variables that carry a slice into a process, and their aliases.
 *
 * `allot run` sets them; the environment-only way (LD_PRELOAD without `run`) reads the same ones.
 * They are read once, when the process first calls cuInit or nvmlInit. Readable from C. */
#ifndef ALLOT_ABI_ENV_H
#define ALLOT_ABI_ENV_H

#define ALLOT_ENV_SLICE "ALLOT_TENANT"    /* path of the slice's region file; wins over the rest */
#define ALLOT_ENV_NAME "ALLOT_NAME"       /* slice name for the environment-only way; "default" */
#define ALLOT_ENV_DIR "ALLOT_DIR"         /* region folder, instead of the default one */
#define ALLOT_ENV_GPU_MEM "ALLOT_GPU_MEM" /* memory limit for every GPU; _0, _1 ... for one */
#define ALLOT_ENV_GPU_SHARE "ALLOT_GPU_SHARE"   /* guaranteed share of GPU time, percent */
#define ALLOT_ENV_GPU_MAX "ALLOT_GPU_MAX"       /* ceiling of GPU time, percent */
#define ALLOT_ENV_OVERCOMMIT "ALLOT_OVERCOMMIT" /* 1: shares may sum to more than 100 % */
#define ALLOT_ENV_PRIORITY "ALLOT_PRIORITY"     /* high, normal or low */
#define ALLOT_ENV_LEVEL "ALLOT_LEVEL"           /* auto, channel, launch or observe */
#define ALLOT_ENV_SWAP "ALLOT_SWAP"           /* fast: memory is made so that evictions are fast */
#define ALLOT_ENV_FAIL "ALLOT_FAIL"           /* open (default without `run`) or closed */
#define ALLOT_ENV_LIBDIR "ALLOT_LIBDIR"       /* folder of the preloaded libraries */
#define ALLOT_ENV_REAL_CUDA "ALLOT_REAL_CUDA" /* absolute path of the driver's libcuda.so.1 */
#define ALLOT_ENV_REAL_NVML "ALLOT_REAL_NVML" /* absolute path of the driver's libnvidia-ml.so.1 */
#define ALLOT_ENV_DISABLE "ALLOT_DISABLE"     /* 1: the libraries only forward */
#define ALLOT_ENV_SIGNALS "ALLOT_SIGNALS" /* 1: SIGUSR2 to `allot run` evicts, SIGUSR1 restores */
#define ALLOT_ENV_LOG "ALLOT_LOG"         /* path of a file that takes the shim's messages */
/* Where `allot` logs deeds: the path of a journal's socket, or "off"; journald, else syslog */
#define ALLOT_ENV_JOURNAL "ALLOT_JOURNAL"

/* HAMi-core's names for the same things, read where ours are absent. */
#define ALLOT_ALIAS_GPU_MEM "CUDA_DEVICE_MEMORY_LIMIT" /* also with _<i> */
#define ALLOT_ALIAS_GPU_SHARE "CUDA_DEVICE_SM_LIMIT"   /* also with _<i>; share and max at once */
#define ALLOT_ALIAS_PRIORITY "CUDA_TASK_PRIORITY"      /* 0 high, 1 low */
#define ALLOT_ALIAS_POLICY "GPU_CORE_UTILIZATION_POLICY"
#define ALLOT_ALIAS_REGION "CUDA_DEVICE_MEMORY_SHARED_CACHE" /* a path: its hash names the slice */

/* The software GPU. */
#define ALLOT_ENV_SIM_GPUS "ALLOT_SIM_GPUS" /* "2x80G" or "80G,24G"; 1x80G */
#define ALLOT_ENV_SIM_LOOK "ALLOT_SIM_LOOK" /* "1": make and change nothing (listings) */
#define ALLOT_ENV_SIM_DIR \
  "ALLOT_SIM_DIR" /* folder that all processes of one software machine share */
#define ALLOT_ENV_SIM_FAULTS "ALLOT_SIM_FAULTS" /* scripted faults and delays, see sim/README.md */

#endif
