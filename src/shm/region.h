// Create, attach, check and clear the files of the node region.
//
// The folder, in this order: ALLOT_DIR; /run/allot where root has made it (setgid group, sticky: all
// users of the machine see each other, each may change only his own slices); else a folder of the
// user, /dev/shm/allot-<uid>, made 0700. A folder or file that is a link, or belongs to somebody it
// should not belong to, is refused, not followed.
#pragma once

#include <cstddef>
#include <cstdint>

#include "abi/region.h"
#include "base/result.h"

namespace allot::shm {

inline constexpr size_t kPathBytes = 512;

// The region folder of this process: writes its path to `out` (kPathBytes). `dir` overrides (the
// value of ALLOT_DIR, may be null). With `create`, makes the user's own folder if it is missing.
// Errors: kNotFound, kNoPermission (exists, but is not ours to use), kBadValue (path too long).
// Any thread; does not allocate; blocks only on the file system.
Result<void> region_folder(const char* dir, bool create, char* out);

// True for a usable tenant name: 1 to 63 of [A-Za-z0-9._-], first not '.' or '-'.
bool valid_name(const char* name);

struct NewTenant {
  const char* name;
  uint32_t flags;            // ALLOT_TENANT_*
  int32_t launcher_pid;      // 0 = none
  uint32_t priority;
  uint32_t level;
};

// A mapped tenant file. Trivially destructible on purpose: guests keep it until the process ends;
// others call unmap().
struct Tenant {
  AllotTenantFile* file = nullptr;
  bool writable = false;
  explicit operator bool() const { return file != nullptr; }
};

// Makes `<folder>/<name>.tenant`, complete before it gets its name (written under a temporary name,
// then linked), so nobody ever sees half a file. A stale file of that name (earlier boot, or nobody
// alive in it) is replaced.
// Errors: kExists (name in use), kBadValue (name), kNoPermission, kFull (no space), kSystem.
Result<Tenant> create_tenant(const char* folder, const NewTenant& tenant);

// Maps an existing tenant file, read-only or for writing, after checking owner, size, magic, version
// and every count in it.
// Errors: kNotFound, kNoPermission, kWrongVersion, kDamaged, kSystem.
Result<Tenant> open_tenant(const char* path, bool writable);

// Takes the mapping away; removes the file. remove_tenant refuses (kExists) while a live process that
// is not `except_pid` stands in it.
void unmap(Tenant& tenant);
Result<void> remove_tenant(const char* path, uint32_t except_pid);

// Finds the GPU with this uuid, or adds it with `limit_bytes` and `physical_bytes`.
// Errors: kFull (16 GPUs). Any process of the tenant, any thread; lock-free.
Result<uint32_t> find_or_add_gpu(Tenant& tenant, const uint8_t uuid[16], uint64_t limit_bytes,
                                 uint64_t physical_bytes);

// core::AliveFn over /proc: pid exists and its start time is the slot's; a slot marked execing is
// alive only while the process still maps the tenant file. A process of another pid namespace, which
// cannot be asked, counts as alive.
bool process_alive(void* context, uint32_t pid, const AllotSlot& slot);

// True if the launcher or any process of the tenant is alive.
bool tenant_in_use(const Tenant& tenant);

// Calls `visit(context, path)` for every tenant file in `folder`. Returns how many.
uint32_t list_tenants(const char* folder, void (*visit)(void* context, const char* path),
                      void* context);

}  // namespace allot::shm
