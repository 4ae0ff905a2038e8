// The driver itself hides GPUs when it initialises, by CUDA_VISIBLE_DEVICES, and then all of its
// calls agree. So the variable is replaced for that moment, in the list that getenv() reads.
#include "shim/entry/visible_devices.h"

#include <unistd.h>

#include <string_view>

#include "base/text.h"
#include "core/shared.h"
#include "sys/environment.h"
#include "sys/file.h"

namespace allot::shim {
namespace {

constexpr std::string_view kName = "CUDA_VISIBLE_DEVICES=";
constexpr uint32_t kUuidText = 40;  // "GPU-" and 36 characters
constexpr uint32_t kTokens = 64;
constinit char narrowed[kName.size() + kTokens * (kUuidText + 1) + 1] = {};

// MIG instances have no index of their own in the file (AllotGpu.index_plus_one).
void write_uuid(const AllotGpu& gpu, TextBuf& text) {
  text.text(core::load(gpu.index_plus_one) == 0 ? "MIG-" : "GPU-");
  for (int i = 0; i < 16; ++i) {
    if (i == 4 || i == 6 || i == 8 || i == 10) text.put('-');
    text.hex(gpu.uuid[i], 2);
  }
}

char lower(char c) {
  return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
}

bool begins_with(std::string_view whole, std::string_view part) {
  if (part.size() > whole.size()) return false;
  for (size_t i = 0; i < part.size(); ++i) {
    if (lower(whole[i]) != lower(part[i])) return false;
  }
  return true;
}

// The GPU of the slice that one element of the program's list means, or -1.
int meant_by(const AllotSliceFile& file, uint32_t count, std::string_view element) {
  while (!element.empty() && element.front() == ' ') element.remove_prefix(1);
  while (!element.empty() && element.back() == ' ') element.remove_suffix(1);
  if (element.empty()) return -1;
  uint32_t number = 0;
  bool digits = element.size() < 6;
  for (char c : element) {
    digits = digits && c >= '0' && c <= '9';
    if (digits) number = number * 10 + static_cast<uint32_t>(c - '0');
  }
  if (digits) return number < count ? static_cast<int>(number) : -1;
  if (element.size() < 5) return -1;
  for (uint32_t i = 0; i < count; ++i) {
    char room[kUuidText + 1];
    TextBuf text(room, sizeof(room));
    write_uuid(file.gpus[i], text);
    if (begins_with(room, element)) return static_cast<int>(i);
  }
  return -1;
}

// As the driver reads the variable: up to the first element that means nothing.
void write_list(const AllotSliceFile& file, const char* own) {
  const uint32_t known = core::load(file.header.gpu_count);
  const uint32_t count = known < ALLOT_MAX_GPUS ? known : ALLOT_MAX_GPUS;
  TextBuf text(narrowed, sizeof(narrowed));
  text.text(kName);
  uint32_t written = 0;
  const auto add = [&](uint32_t i) {
    if (written++ > 0) text.put(',');
    write_uuid(file.gpus[i], text);
  };
  if (own == nullptr) {
    for (uint32_t i = 0; i < count; ++i) add(i);
  } else {
    std::string_view rest = own;
    while (written < kTokens) {
      const size_t comma = rest.find(',');
      const int gpu = meant_by(
          file, count, {rest.data(), comma == std::string_view::npos ? rest.size() : comma});
      if (gpu < 0) break;
      add(static_cast<uint32_t>(gpu));
      if (comma == std::string_view::npos) break;
      rest.remove_prefix(comma + 1);
    }
  }
  if (written == 0) text.text("-1");
}

char** own_entry() {
  for (char** at = environ; at != nullptr && *at != nullptr; ++at) {
    if (std::string_view(*at).starts_with(kName)) return at;
  }
  return nullptr;
}

}  // namespace

NarrowedDevices::NarrowedDevices(const AllotSliceFile& file) {
  if ((core::load(file.header.flags) & ALLOT_SLICE_OWN_GPUS) == 0) return;
  char** const entry = own_entry();
  write_list(file, entry != nullptr ? *entry + kName.size() : nullptr);
  if (entry != nullptr) {
    before_ = *entry;
    *entry = narrowed;
    active_ = true;
    return;
  }
  uint32_t count = 0;
  while (environ != nullptr && environ[count] != nullptr) ++count;
  // Never given back: another thread may be reading it.
  const Result<void*> memory = sys::map_memory((count + 2) * sizeof(char*));
  if (!memory) return;
  char** const list = static_cast<char**>(*memory);
  for (uint32_t i = 0; i < count; ++i) list[i] = environ[i];
  list[count] = narrowed;
  environment_ = environ;
  environ = list;
  active_ = true;
}

NarrowedDevices::~NarrowedDevices() {
  if (!active_) return;
  if (environment_ != nullptr && environ != nullptr) {
    for (char** at = environ; *at != nullptr; ++at) {
      if (*at != narrowed) continue;
      for (; *at != nullptr; ++at) at[0] = at[1];
      break;
    }
    return;  // a list as long as before, which a setenv() may have made its own
  }
  for (char** at = environ; at != nullptr && *at != nullptr; ++at) {
    if (*at == narrowed) *at = before_;
  }
}

}  // namespace allot::shim
