// Copies our variables into memory of our own. 16 KiB hold many times what `run` sets; where a long
// LD_LIBRARY_PATH or many variables need more, memory is mapped for them.
#include "shim/process/start_environment.h"

#include <atomic>
#include <cstddef>

#include "abi/env.h"
#include "base/text.h"
#include "shim/process/spin.h"
#include "sys/environment.h"
#include "sys/file.h"
#include "sys/keep_errno.h"

namespace allot::shim {
namespace {

constexpr uint64_t kRoom = 16384;
constexpr uint32_t kMost = 64;
constinit char own_room[kRoom] = {};
constinit const char* own_variables[kMost] = {};
constinit char* room = own_room;
constinit uint64_t room_bytes = kRoom;
constinit uint64_t room_used = 0;
constinit uint32_t most_variables = kMost;
constinit StartEnvironment environment = {};
constinit std::atomic<bool> ready{false};
constinit SpinLock reading;

bool begins(const char* text, const char* with) {
  while (*with != '\0' && *text == *with) {
    ++text;
    ++with;
  }
  return *with == '\0';
}

// Value behind "name=" in "NAME=VALUE", or null.
const char* value_of(const char* entry, const char* name) {
  while (*name != '\0' && *entry == *name) {
    ++entry;
    ++name;
  }
  return *name == '\0' && *entry == '=' ? entry + 1 : nullptr;
}

uint64_t length_of(const char* text) {
  uint64_t length = 0;
  while (text[length] != '\0') ++length;
  return length;
}

const char* keep(const char* text) {
  const uint64_t length = length_of(text);
  if (length + 1 > room_bytes - room_used) {
    environment.cut = true;
    return nullptr;
  }
  char* copy = room + room_used;
  for (uint64_t i = 0; i <= length; ++i) copy[i] = text[i];
  room_used += length + 1;
  return copy;
}

bool is_limit(const char* entry) {
  return begins(entry, ALLOT_ENV_GPU_MEM) || begins(entry, ALLOT_ENV_GPU_SHARE) ||
         begins(entry, ALLOT_ENV_GPU_MAX) || begins(entry, ALLOT_ALIAS_GPU_MEM) ||
         begins(entry, ALLOT_ALIAS_GPU_SHARE);
}

bool is_ours(const char* entry) {
  return begins(entry, "ALLOT_") || begins(entry, ALLOT_ALIAS_GPU_MEM) ||
         begins(entry, ALLOT_ALIAS_GPU_SHARE) || value_of(entry, ALLOT_ALIAS_PRIORITY) != nullptr ||
         value_of(entry, ALLOT_ALIAS_POLICY) != nullptr ||
         value_of(entry, ALLOT_ALIAS_REGION) != nullptr;
}

// Maps memory where what is to be copied does not fit.
void make_room() {
  uint64_t bytes = 0;
  uint32_t count = 0;
  for (char** at = environ; at != nullptr && *at != nullptr; ++at) {
    const bool ours = is_ours(*at);
    count += ours;
    if (ours || begins(*at, "LD_PRELOAD=") || begins(*at, "LD_LIBRARY_PATH=")) {
      bytes += length_of(*at) + 1;
    }
  }
  environment.variables = own_variables;
  if (bytes <= kRoom && count <= kMost) return;
  const uint64_t list_bytes = uint64_t{count} * sizeof(char*);
  const Result<void*> memory = sys::map_memory(list_bytes + bytes);
  if (!memory) return;
  environment.variables = static_cast<const char**>(*memory);
  most_variables = count;
  room = static_cast<char*>(*memory) + list_bytes;
  room_bytes = bytes;
}

void note_variable(const char* entry) {
  const char* slice = value_of(entry, ALLOT_ENV_SLICE);
  if (is_limit(entry) || (slice != nullptr && *slice != '\0')) environment.carries_slice = true;
  const char* disable = value_of(entry, ALLOT_ENV_DISABLE);
  if (disable != nullptr && disable[0] == '1' && disable[1] == '\0') environment.disabled = true;
  if (environment.count == most_variables) {
    environment.cut = true;
  } else if (const char* copy = keep(entry)) {
    environment.variables[environment.count++] = copy;
  }
}

void read() {
  const sys::KeepErrno keep_errno;
  make_room();
  for (char** at = environ; at != nullptr && *at != nullptr; ++at) {
    const char* entry = *at;
    if (const char* preload = value_of(entry, "LD_PRELOAD")) {
      environment.preload = keep(preload);
    } else if (const char* path = value_of(entry, "LD_LIBRARY_PATH")) {
      environment.library_path = keep(path);
    } else if (is_ours(entry)) {
      note_variable(entry);
    }
  }
}

}  // namespace

const StartEnvironment& start_environment() {
  if (!ready.load(std::memory_order_acquire)) {
    reading.lock();
    if (!ready.load(std::memory_order_relaxed)) {
      read();
      ready.store(true, std::memory_order_release);
    }
    reading.unlock();
  }
  return environment;
}

const char* start_variable(const char* name) {
  const StartEnvironment& start = start_environment();
  for (uint32_t i = 0; i < start.count; ++i) {
    const char* value = value_of(start.variables[i], name);
    if (value != nullptr && *value != '\0') return value;
  }
  return nullptr;
}

const char* start_variable_for(const char* name, uint32_t index) {
  char indexed[80];
  TextBuf(indexed, sizeof(indexed)).text(name).put('_').u64(index);
  const char* value = start_variable(indexed);
  return value != nullptr ? value : start_variable(name);
}

}  // namespace allot::shim
