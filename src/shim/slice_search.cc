// The order is explained in the header; each step is one function of shm.
#include "shim/slice_search.h"

#include "abi/env.h"
#include "abi/region.h"
#include "base/text.h"
#include "base/units.h"
#include "shim/start_environment.h"
#include "shm/region.h"
#include "sys/process.h"

namespace allot::shim {
namespace {

bool same(const char* a, const char* b) {
  while (*a != '\0' && *a == *b) {
    ++a;
    ++b;
  }
  return *a == *b;
}

// A limit for any device: enough to make a slice of one's own.
bool names_limit() {
  for (uint32_t i = 0; i < ALLOT_MAX_GPUS; ++i) {
    if (start_variable_for(ALLOT_ENV_GPU_MEM, i) || start_variable_for(ALLOT_ALIAS_GPU_MEM, i))
      return true;
  }
  return start_variable(ALLOT_ENV_GPU_SHARE) || start_variable(ALLOT_ENV_GPU_MAX) ||
         start_variable(ALLOT_ALIAS_GPU_SHARE);
}

// ALLOT_NAME; else a name made of the path that HAMi's processes share; else "default".
void tenant_name(char* out, uint32_t size) {
  TextBuf text(out, size);
  if (const char* name = start_variable(ALLOT_ENV_NAME)) {
    text.text(name);
    if (text.cut()) out[0] = '\0';  // too long: not a name
  } else if (const char* shared = start_variable(ALLOT_ALIAS_REGION)) {
    uint32_t length = 0;
    while (shared[length] != '\0') ++length;
    text.text("shared-").hex(hash64(shared, length), 16);
  } else {
    text.text("default");
  }
}

}  // namespace

Result<void> choose_slice(SliceChoice* out) {
  *out = {};
  if (start_environment().disabled) return {};
  if (const char* tenant = start_variable(ALLOT_ENV_TENANT)) {
    TextBuf path(out->path, sizeof(out->path));
    path.text(tenant);
    if (path.cut()) return fail(Errc::kBadValue);
    out->kind = SliceChoice::Kind::kFile;
    return {};
  }
  const bool by_limits = names_limit();
  const Result<void> folder =
      shm::region_folder(start_variable(ALLOT_ENV_DIR), by_limits, out->folder);
  if (!folder) {
    if (by_limits) return folder;
    return {};  // no folder and nothing asked for: not in a slice
  }
  if (shm::find_tenant_of_ancestors(out->folder, sys::current_pid(), out->path) ||
      shm::find_default_tenant(out->folder, out->path)) {
    out->kind = SliceChoice::Kind::kFile;
    return {};
  }
  if (!by_limits) return {};
  tenant_name(out->name, sizeof(out->name));
  if (!shm::valid_name(out->name)) return fail(Errc::kBadValue);
  out->kind = SliceChoice::Kind::kByLimits;
  return {};
}

uint64_t limit_of(uint32_t visible_index) {
  for (const char* name : {ALLOT_ENV_GPU_MEM, ALLOT_ALIAS_GPU_MEM}) {
    const char* text = start_variable_for(name, visible_index);
    if (text == nullptr) continue;
    if (same(text, "none")) return ALLOT_UNLIMITED;
    const Result<uint64_t> bytes = parse_size(text);
    if (bytes && *bytes > 0) return *bytes;
  }
  return ALLOT_UNLIMITED;
}

bool fails_closed() {
  const char* text = start_variable(ALLOT_ENV_FAIL);
  return text != nullptr && same(text, "closed");
}

}  // namespace allot::shim
