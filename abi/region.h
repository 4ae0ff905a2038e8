/* The node region: what slices, processes and charges look like in shared memory.
 *
 * The region is a folder; each slice is one file in it, `<name>.slice`, owned by the user who made
 * it. Only the slice's own processes and its owner's commands write the file; all others read it.
 * So a slice that writes garbage harms only itself, file permissions decide who may change which
 * slice, and a name is in use exactly while its file exists (docs/adr/0001).
 *
 *   byte 0        4096        8192           24576        57344         4775936    4792320
 *   +-------------+-----------+--------------+------------+-------------+----------+-------------+
 *   | header      | gpus[16]  | clients[256] | slot_words | slots[4096] | exports  | swaps[4096] |
 *   | 4 KiB       | 256 B each| 64 B each    | 4096 x 8 B | 1152 B each | 1024x16B | 256 B each  |
 *   +-------------+-----------+--------------+------------+-------------+----------+-------------+
 *  written by: creator,        the client's   all          the slot's    the         the slot's
 * `allot set`                 own agent      processes    own process   exporting   process; orders
 *
 * In a folder that every user may use, `<name>.slice` ends before slot_words (ALLOT_HEAD_BYTES) and
 * all may read it: limits and clients, which is what shares and schedules are counted from. The
 * rest, which names processes and what each holds, is in a file that only its owner (and the
 * folder's group, where it is setgid) may read: `.<name>-<created_unix_ns, 16 hex digits>.body`,
 * with the same offsets and a hole in place of the head. The owner maps the two as one.
 *
 * Every byte is hostile: a reader checks magic, version and sizes once, then copies an index to a
 * local variable before it checks and uses it. Fields are only ever appended in the reserved space;
 * a change of meaning raises the major version, and a file of another major version is refused.
 *
 * Charges. A process writes how much it holds into its own slot, by GPU and kind. The account of a
 * GPU is one 16-byte word {used, generation, sequence} that is changed by compare-and-swap, so no
 * race can exceed the limit. Invariant, whenever no operation is under way:
 *     account.used == sum of charges[gpu][*] over all slots that are live
 * A process killed between the two writes breaks it; a recount (new generation) repairs it. The
 * algorithm and the reason why it is right: src/core/ledger.h.
 *
 * GPU time. Each process that uses a GPU registers as a client of it and publishes there whether it
 * has work. The agents of all slices read each other's header, GPUs and clients, and each computes
 * the same schedule by itself (src/core/time_policy.h). Nobody writes another slice's file: an
 * agent whose published state changed wakes the others with FUTEX_WAKE on their header.wake_seq,
 * which needs no write permission.
 *
 * Readable from C; sizes and offsets are pinned by abi/region_test.cc.
 */
#ifndef ALLOT_ABI_REGION_H
#define ALLOT_ABI_REGION_H

#include <stdint.h>

#define ALLOT_REGION_MAGIC 0x31544f4c4c41ull /* "ALLOT1", little endian */
#define ALLOT_REGION_MAJOR 1u
#define ALLOT_REGION_MINOR 6u
#define ALLOT_REGION_SUFFIX ".slice"
#define ALLOT_BODY_SUFFIX ".body"
#define ALLOT_MAX_GPUS 16u
#define ALLOT_MAX_SLOTS 4096u
#define ALLOT_MAX_EXPORTS 1024u
#define ALLOT_MAX_CLIENTS 256u
#define ALLOT_CLIENT_STALE_NS \
  500000000ull /* a client with an older heartbeat does not count: its agent cannot run */
#define ALLOT_NAME_BYTES 64u /* with the final NUL; [A-Za-z0-9._-], not starting with '.' or '-' */
#define ALLOT_UNLIMITED UINT64_MAX

/* What a charge is for. Order is part of the layout. */
enum AllotKind {
  ALLOT_KIND_LINEAR = 0,  /* cuMemAlloc, cuMemAllocPitch */
  ALLOT_KIND_ARRAY = 1,   /* arrays and mipmapped arrays */
  ALLOT_KIND_MANAGED = 2, /* cuMemAllocManaged, in full while it lives */
  ALLOT_KIND_POOL = 3,    /* bytes that stream-ordered pools have reserved */
  ALLOT_KIND_VMM = 4,     /* cuMemCreate, until released and unmapped */
  ALLOT_KIND_GRAPH = 5,   /* graph memory nodes */
  ALLOT_KIND_IMPORT = 6,  /* memory of another slice, opened here */
  ALLOT_KIND_DRIVER = 7,  /* contexts, modules, NCCL: no call shows it, NVML measures it */
  ALLOT_KINDS = 8
};

/* How GPU time is enforced (docs/design/gpu-time.md). */
enum AllotLevel {
  ALLOT_LEVEL_AUTO = 0,
  ALLOT_LEVEL_CHANNEL = 1,
  ALLOT_LEVEL_LAUNCH = 2,
  ALLOT_LEVEL_OBSERVE = 3
};
enum AllotPriority { ALLOT_PRIORITY_NORMAL = 0, ALLOT_PRIORITY_HIGH = 1, ALLOT_PRIORITY_LOW = 2 };

/* Why the level in force is not the one asked for, or not `channel`. */
enum AllotLevelReason {
  ALLOT_REASON_NONE = 0,
  ALLOT_REASON_ASKED = 1,        /* --level */
  ALLOT_REASON_NO_CHANNELS = 2,  /* no channel group of this process was seen on the GPU */
  ALLOT_REASON_NO_TIMESLICE = 3, /* the driver refused SET_TIMESLICE */
  ALLOT_REASON_NO_DISABLE = 4,   /* the driver refused FIFO_DISABLE_CHANNELS */
  ALLOT_REASON_MPS = 5,          /* an MPS client: its channels are the MPS server's */
  ALLOT_REASON_CONTROL = 6,      /* the driver refused a call that had worked before */
  ALLOT_REASON_NO_AGENT = 7,     /* the agent's thread could not be started */
  ALLOT_REASON_CROWDED = 8,      /* 64 older slices have work on the GPU: nobody weighs it */
  ALLOT_REASON_TABLES = 9        /* more channels than allot keeps: not all can be stopped */
};

/* Tables inside a process that have been full (AllotSlot.full_tables): what did not fit, and how
 * its GPU time is held all the same (docs/limits.md). */
#define ALLOT_TABLE_CHANNELS 1u    /* channels and their objects: level launch instead of channel */
#define ALLOT_TABLE_DESCRIPTORS 2u /* the driver's descriptors: level launch, if it was the one */
#define ALLOT_TABLE_STREAMS 4u     /* streams: the process counts as busy, whatever it does */
#define ALLOT_TABLE_CONTEXTS 8u    /* contexts: likewise, on all GPUs */
#define ALLOT_TABLE_MARKERS 16u    /* contexts with markers: work of the rest is bounded loosely */
#define ALLOT_TABLE_ACCOUNTS 32u   /* streams with work in flight: two share one account */
#define ALLOT_TABLE_COSTS 64u      /* kernels and graphs: the rest counts as 5 ms each */

/* Flags of a slice. */
#define ALLOT_SLICE_FAIL_CLOSED 1u /* refuse GPU work where a limit cannot be enforced */
#define ALLOT_SLICE_SOFTWARE 2u    /* runs on the software GPU */
#define ALLOT_SLICE_DEFAULT 4u     /* processes without a slice of their own join it */
#define ALLOT_SLICE_LEAVING \
  8u /* about to be removed: a process that takes a slot now must leave again */
#define ALLOT_SLICE_FROZEN 16u /* no GPU work runs until thawed */
#define ALLOT_SLICE_EVICTED \
  32u /* its memory moves to the host, is there, or comes back: calls wait, agents are detached */
#define ALLOT_SLICE_RETURNS 64u /* evicted while idle; the launcher restores it when it has work */
#define ALLOT_SLICE_SWAP_FAST \
  128u /* its memory is made so that an eviction can swap the backing of the addresses */
#define ALLOT_SLICE_OWN_GPUS 512u     /* its GPUs are all that its processes see, numbered from 0 */
#define ALLOT_SLICE_SEALED \
  1024u /* root has set its limits: the owner may lower them, up to what is sealed */
#define ALLOT_SLICE_EVICTED_FAST 256u /* with EVICTED: by the processes, not by the driver */

/* Flags of a client. */
#define ALLOT_CLIENT_ACTIVE 1u    /* has work for the GPU */
#define ALLOT_CLIENT_SATURATES 2u /* leaves no gaps in its own windows, or waits for every step */
#define ALLOT_CLIENT_OPEN 4u      /* its work may run now */
#define ALLOT_CLIENT_FROZEN 8u    /* stopped by a freeze: nothing of it runs */
#define ALLOT_CLIENT_DETACHED \
  16u /* of an evicted slice: its work runs; the agent holds no channel and no descriptor */
#define ALLOT_CLIENT_REPAYS 32u /* repays time that it overran: takes no window meanwhile */
#define ALLOT_CLIENT_DRAINS 64u /* its gate is closed, but submitted work still runs */
#define ALLOT_CLIENT_AWAKE 128u /* has or had work in the last 10 s: keeps its place in the cycle */
#define ALLOT_CLIENT_CREDIT 256u /* has used less than its part lately */
#define ALLOT_CLIENT_WAITS 512u  /* waits for its work every few milliseconds */

/* State of a slot, the low 8 bits of its word.
 *
 *          take_slot          filled in           end_slot, or found dead      dead, and recounted
 *   FREE -------------> TAKING ---------> LIVE ---------------------> ENDING ----------------> FREE
 *                         |  found dead                                      (when taken: next
 *                         +----------------------------------------------------> FREE  generation)
 *
 * Only LIVE slots count. An ENDING slot is not reused while its process lives, so that a late
 * thread of it writes into no other process's charges. A process that finds a slot ENDING and its
 * owner dead recounts before it frees the slot, because the writer of ENDING may have been killed
 * before its own recount. In TAKING the other fields of the slot are not valid yet; pid is 0 if the
 * taker lives in another pid namespace than the creator of the file: then only its lock says
 * whether it lives, and where AllotHeader.held says that there are none nobody frees the slot. */
enum AllotSlotState {
  ALLOT_SLOT_FREE = 0,
  ALLOT_SLOT_TAKING = 1,
  ALLOT_SLOT_LIVE = 2,
  ALLOT_SLOT_ENDING = 3
};

/* Whether memory of a process is on the host, and how it got there. */
enum AllotEvicted {
  ALLOT_EVICTED_NOT = 0,
  ALLOT_EVICTED_DRIVER = 1, /* all of it, by the driver's checkpoint calls */
  ALLOT_EVICTED_FAST = 2    /* AllotSwap.movable, by the process itself */
};

/* How others tell that a process of the slice is alive (docs/adr/0013). A lock is one of an opening
 * of the file (F_OFD_SETLK) on one byte far behind its end; the kernel drops it when the process
 * ends or its program is replaced. */
enum AllotHeld {
  ALLOT_HELD_BY_PID = 0, /* pid and start time: no lock could be taken, or region 1.2 wrote it */
  ALLOT_HELD_BY_LOCK = 1
};
#define ALLOT_LOCK_SLOT(index) ((1ull << 40) + (index))     /* exclusive: its process */
#define ALLOT_LOCK_MEMBERS ((1ull << 40) + ALLOT_MAX_SLOTS) /* shared: launcher and heirs */

/* Slot word: state (8 bits) | generation (24 bits) | pid (32 bits). One atomic store ends it. */
#define ALLOT_SLOT_WORD(state, generation, pid)                             \
  ((uint64_t)(uint8_t)(state) | ((uint64_t)((generation)&0xffffffu) << 8) | \
   ((uint64_t)(uint32_t)(pid) << 32))
#define ALLOT_SLOT_STATE(word) ((uint8_t)(word))
#define ALLOT_SLOT_GENERATION(word) ((uint32_t)((word) >> 8) & 0xffffffu)
#define ALLOT_SLOT_PID(word) ((uint32_t)((word) >> 32))

typedef struct AllotHeader {
  uint64_t magic; /* written last by the creator, with release order */
  uint32_t major;
  uint32_t minor;
  uint64_t file_bytes; /* sizeof(AllotSliceFile) of the creator; ALLOT_HEAD_BYTES: has a body */
  uint32_t header_bytes;
  uint32_t gpu_bytes;
  uint32_t slot_bytes;
  uint32_t slot_count;
  uint8_t boot_id[16]; /* a file of an earlier boot is stale */
  char name[ALLOT_NAME_BYTES];
  uint32_t uid;
  uint32_t flags;          /* atomic; ALLOT_SLICE_* */
  int32_t launcher_pid;    /* `allot run`; 0 for the environment-only way */
  uint32_t gpu_count;      /* atomic; entries of gpus[] in use; only grows */
  uint64_t launcher_start; /* start time of the launcher, /proc/PID/stat field 22 */
  uint64_t created_unix_ns;
  uint64_t pid_namespace;   /* inode of the creator's pid namespace */
  uint64_t config_sequence; /* atomic; raised by every change of a limit */
  uint32_t slots_high;      /* atomic; slots from this one on were never used */
  uint32_t unknown_symbols; /* atomic; driver entries asked for that are not in the table */
  uint32_t priority;        /* atomic; AllotPriority */
  uint32_t level;           /* atomic; AllotLevel asked for */
  uint32_t ledger_faults;   /* atomic; releases of more than was charged: a bug of allot */
  uint32_t wake_seq;        /* atomic; futex on which the slice's agents sleep */
  uint32_t latency_us;      /* atomic; the longest stop it was given to bear; 0 = default */
  uint32_t held;            /* atomic; AllotHeld: BY_LOCK = takers of slots lock them first */
  /* atomic; descriptor by which launcher and heirs hold ALLOT_LOCK_MEMBERS; 0 = none */
  uint32_t members_fd;
  /* Since 1.5; where `minor` is less they are not kept. Only commands write them. */
  uint32_t evictions;    /* atomic; how often it was evicted */
  uint64_t frozen_clock; /* atomic; time in which it was frozen: even = 2 x ns so far; odd = it is
                            frozen, 2 x (CLOCK_MONOTONIC of the freeze - ns before it) + 1 */
  uint32_t restores;     /* atomic; how often it came back */
  uint8_t reserved[4080 - 220];
  /* atomic, since 1.6; hash of the cgroup whose processes belong to it; 0 = none */
  uint64_t cgroup_claim;
  uint32_t reserved_too;
  uint32_t sealed_priority; /* atomic, since 1.6; with SEALED: the highest that its owner may set */
} AllotHeader;

/* 16 bytes, aligned to 16, read and written only as a whole. */
typedef struct AllotAccount {
  uint64_t used_bytes;
  uint32_t generation; /* raised by a recount */
  uint32_t sequence;   /* raised by every other change */
} __attribute__((aligned(16))) AllotAccount;

typedef struct AllotGpu {
  uint8_t uuid[16]; /* as cuDeviceGetUuid gives it; claimed by one 16-byte CAS from all
                       zero, so two processes never make two entries of one GPU */
  AllotAccount account;
  uint64_t limit_bytes;    /* atomic; ALLOT_UNLIMITED = none; 0 = not set yet (first use sets it) */
  uint64_t physical_bytes; /* what the GPU has, as the driver says */
  uint64_t context_bytes;  /* atomic; what the last context here took; 0 = not known */
  uint64_t peak_bytes;     /* atomic; highest account.used seen, for display */
  uint64_t refused;        /* atomic; requests refused at the limit */
  uint32_t share_permille; /* atomic; 0 = none asked for */
  uint32_t max_permille;   /* atomic; 0 = none */
  uint32_t recount_turn;   /* atomic; a hint: a recount keeps failing, others pause a moment */
  uint32_t index_plus_one; /* atomic; 1 + the number `allot gpus` shows; 0 = not known */
  uint64_t time_used_ns;   /* atomic; GPU time that the slice's processes have used */
  uint64_t time_throttled_ns; /* atomic; time in which it had work that could not run */
  uint8_t reserved[256 - 104 - 16];
  /* atomic; with SEALED: the most that its owner may set; written as the limits above */
  uint64_t sealed_bytes;
  uint32_t sealed_share_permille;
  uint32_t sealed_max_permille;
} AllotGpu;

/* A process as a client of one GPU's time. Only the process's agent writes it. */
typedef struct AllotGpuClient {
  uint64_t owner;         /* atomic; the process's slot word (LIVE); 0 = free */
  uint64_t heartbeat_ns;  /* atomic; CLOCK_MONOTONIC, when the agent last ran */
  uint32_t gpu;           /* atomic; index in gpus[] */
  uint32_t flags;         /* atomic; ALLOT_CLIENT_* */
  uint64_t used_ns;       /* atomic; GPU time used */
  uint64_t throttled_ns;  /* atomic; time in which it had work that could not run */
  uint32_t level;         /* atomic; AllotLevel in force */
  uint32_t reason;        /* atomic; AllotLevelReason */
  uint32_t timeslice_us;  /* atomic; timeslice of its channel groups; 0 = the driver's own */
  uint16_t busy_permille; /* atomic; part of its open time in which it had work, smoothed */
  /* atomic; of the GPU, what going first costs the others; 0 and 1000 = all of it */
  uint16_t footprint_permille;
  uint32_t window_permille; /* atomic; part of a cycle in which it may run now */
  uint32_t slot;            /* atomic; index of the process's slot */
} AllotGpuClient;

typedef struct AllotSlot {
  uint64_t start_time; /* /proc/PID/stat field 22; identifies the process together with its pid */
  uint64_t pid_namespace;
  uint64_t joined_unix_ns;
  uint32_t execing; /* atomic; inside exec: the next image may not have our library */
  uint32_t level;   /* atomic; AllotLevel in force */
  char command[32]; /* from /proc/PID/comm, for listings */
  uint32_t evicted; /* atomic; AllotEvicted. Memory on the host stays charged */
  uint32_t wants;   /* atomic; a process of an evicted slice: waits to use the GPU */
  /* atomic; CLOCK_MONOTONIC, when its agent last saw it with work; 0 = never */
  uint64_t last_work_ns;
  uint32_t unheld_gpus; /* atomic; a bit for each of gpus[]: no client was left for it */
  uint32_t gpus_beyond; /* atomic; GPUs that it sees and gpus[] has no room for */
  uint32_t held;        /* atomic; AllotHeld */
  uint32_t full_tables; /* atomic; ALLOT_TABLE_*; written by its agent */
  uint8_t reserved[32];
  uint64_t charges[ALLOT_MAX_GPUS][ALLOT_KINDS]; /* atomic; bytes, written by this process only */
} AllotSlot;

/* Memory that a process of the slice offers to others (IPC handles, exported VMM handles): a
 * process of the same slice that opens it is not charged a second time. */
typedef struct AllotExport {
  uint64_t handle_hash; /* atomic; 0 = free */
  uint32_t slot;
  uint32_t slot_generation;
} AllotExport;

/* Fast evict and restore (ALLOT_SLICE_SWAP_FAST): the state that a command orders, and the state
 * that the process has reached (docs/adr/0008).
 *
 *          --- work drained, submissions wait --->        --- copied, GPU memory given back ---->
 *    RUNS                                            HELD                                       OUT
 *          <------------------------------- opened        <--- the same addresses, copied back ---
 */
enum AllotSwapState { ALLOT_SWAP_RUNS = 0, ALLOT_SWAP_HELD = 1, ALLOT_SWAP_OUT = 2 };
enum AllotSwapResult {
  ALLOT_SWAP_OK = 0,
  ALLOT_SWAP_BUSY = 1,    /* its work did not end in time; it still runs */
  ALLOT_SWAP_CAPTURE = 2, /* it kept capturing graphs; it still runs */
  ALLOT_SWAP_PINNED = 3,  /* another device accesses the memory: AllotSwap.pins */
  ALLOT_SWAP_NO_HOST = 4, /* no host memory; nothing has moved */
  ALLOT_SWAP_NO_CARD = 5, /* the GPU is full: the memory stays on the host */
  ALLOT_SWAP_DRIVER = 6   /* the driver refused a call, AllotSwap.cuda_result */
};
#define ALLOT_SWAP_PIN_SYNC 1u   /* SYNC_MEMOPS was set on it, as users of RDMA do */
#define ALLOT_SWAP_PIN_HANDLE 2u /* the driver gave out a handle for a range of it (dma-buf) */

/* An order or an answer: its serial (24 bits) and AllotSwapState. */
#define ALLOT_SWAP_WORD(serial, state) \
  (((uint32_t)(serial)&0xffffffu) << 8 | (uint32_t)(uint8_t)(state))
#define ALLOT_SWAP_SERIAL(word) ((uint32_t)(word) >> 8)
#define ALLOT_SWAP_STATE(word) ((uint32_t)(word)&0xffu)

/* What a process has had and done, summed over its GPUs (since 1.5). The counters only grow. They
 * are of the process in slot i while `counted` is 1 + the generation of slot_words[i] and `pid` its
 * pid; after its end they stay until another process takes the slot. A process that calls exec goes
 * on with them. The sums of a slice are in AllotHeader and AllotGpu. */
typedef struct AllotCounters {
  uint32_t counted;           /* atomic; 0 = nobody's */
  uint32_t pid;               /* atomic */
  uint64_t start_time;        /* atomic */
  uint64_t time_used_ns;      /* atomic; GPU time */
  uint64_t time_throttled_ns; /* atomic; time in which it had work that could not run */
  uint64_t frozen_ns;         /* atomic; time in which its slice was frozen, as its agent saw it */
  uint64_t refused;           /* atomic; requests for memory refused at the limit */
  uint32_t evictions;         /* atomic; a command writes it */
  uint32_t restores;          /* atomic; a command writes it */
  uint64_t reserved;
} AllotCounters;

typedef struct AllotSwap {
  uint64_t owner;       /* atomic; the slot word of the process that obeys; 0 = none */
  uint32_t order;       /* atomic; futex; the command writes it. The process obeys the latest one */
  uint32_t answer;      /* atomic; futex; the order's serial, and the state reached */
  uint32_t result;      /* atomic; AllotSwapResult of that order */
  uint32_t cuda_result; /* atomic; of ALLOT_SWAP_DRIVER */
  uint32_t patience_ms; /* atomic; the command says how long to wait for running work */
  uint32_t pins;        /* atomic; ALLOT_SWAP_PIN_* */
  uint64_t moved_bytes; /* atomic; of the move under way, or the last one */
  uint64_t drain_ns;    /* atomic; how long the last drain took */
  uint64_t move_ns;     /* atomic; the last move */
  AllotCounters counters; /* of the slot's process, whether it swaps fast or not */
  uint8_t reserved[8];
  uint64_t movable[ALLOT_MAX_GPUS]; /* atomic; bytes whose backing can be swapped */
} AllotSwap;

typedef struct AllotSliceFile {
  AllotHeader header;
  AllotGpu gpus[ALLOT_MAX_GPUS];
  AllotGpuClient clients[ALLOT_MAX_CLIENTS];
  uint64_t slot_words[ALLOT_MAX_SLOTS]; /* atomic */
  AllotSlot slots[ALLOT_MAX_SLOTS];
  AllotExport exports[ALLOT_MAX_EXPORTS];
  AllotSwap swaps[ALLOT_MAX_SLOTS]; /* by slot */
} AllotSliceFile;

/* What of it everybody may read: header, gpus and clients. */
#define ALLOT_HEAD_BYTES 24576ull

/* Names of region 1.1, kept for readers that use them. */
typedef AllotSliceFile AllotTenantFile;
#define ALLOT_TENANT_FAIL_CLOSED ALLOT_SLICE_FAIL_CLOSED
#define ALLOT_TENANT_FROZEN ALLOT_SLICE_FROZEN
#define ALLOT_TENANT_EVICTED ALLOT_SLICE_EVICTED

#endif
