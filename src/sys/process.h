// Processes as /proc shows them. A pid alone identifies no process, because the kernel reuses pids:
// pid and start time together do. Everything is read from /proc below a Root; no program is run.
// Unless a function says otherwise: any thread, allocates nothing, does not block; errno does not
// change.
#pragma once

#include <cstdint>

#include "base/result.h"
#include "sys/file.h"

namespace allot::sys {

struct Process {
  uint32_t pid;
  uint32_t parent;
  uint64_t start_time;  // clock ticks after boot, field 22 of /proc/PID/stat
  uint32_t threads;     // 1 for a zombie that only waits to be reaped
  char state;           // R, S, D, Z ...
  char command[32];     // up to 15 bytes for user processes
  // The process has ended, holds no memory and no file, and waits to be reaped. (A main thread that
  // has ended while others run also shows 'Z', but its process lives.)
  bool gone() const { return state == 'X' || (state == 'Z' && threads <= 1); }
};

// Reads /proc/<pid>/stat; pid 0 is the calling process.
// Errors: kNotFound (no such process), kDamaged (text not understood), kNoPermission, kSystem.
Result<Process> read_process(Root root, uint32_t pid);

// The calling process and thread, never from a cache that fork or clone could make stale.
// Signal-safe.
uint32_t current_pid();
uint32_t current_tid();

// Whether a process with that pid exists in our pid namespace, of any user; a zombie exists. One
// system call. Signal-safe.
bool process_exists(uint32_t pid);

// The process has ended or is about to: the kernel has taken its memory and still closes its files.
// False for one that we may not inspect. Kernel threads look the same.
bool is_ending(Root root, uint32_t pid);

// Inode of the pid namespace of a process (0: the calling one): says whether its pids mean the same
// as ours.
// Errors: kNotFound, kNoPermission (another user's process), kDamaged.
Result<uint64_t> pid_namespace(Root root, uint32_t pid);

// The random id of this boot of the machine. Errors: kNotFound, kDamaged.
Result<void> boot_id(Root root, uint8_t out[16]);

// A file as /proc/PID/maps identifies it; on some file systems the device differs from stat's.
struct MapKey {
  uint64_t major;
  uint64_t minor;
  uint64_t inode;
};

// What the calling process has mapped at `address`. Errors: kNotFound.
Result<MapKey> mapped_at(Root root, const void* address);

// Whether a process has that file mapped. Errors: kNotFound (no such process), kNoPermission.
Result<bool> process_maps(Root root, uint32_t pid, MapKey key);

// How often it has that file mapped for writing. Errors: as process_maps.
Result<uint32_t> writable_maps(Root root, uint32_t pid, MapKey key);

}  // namespace allot::sys
