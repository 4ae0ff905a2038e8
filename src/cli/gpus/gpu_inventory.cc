// From the user's words to GPUs. Pure except for the Failures; gpu_query.cc asks the driver.
#include "cli/gpus/gpu_inventory.h"

#include <algorithm>
#include <cctype>

#include "base/text.h"
#include "cli/failure.h"
#include "cli/output.h"

namespace allot::cli {
namespace {

bool all_digits(std::string_view text) {
  return !text.empty() &&
         std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
}

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return out;
}

// "0 (GPU-1a2b3c4d-0000-0000), 1 (GPU-...)": what a user may choose from, short enough for one
// line.
std::string list_of(const Inventory& inventory) {
  constexpr size_t kShown = 8;
  std::string out;
  for (size_t i = 0; i < inventory.gpus.size() && i < kShown; ++i) {
    const Gpu& gpu = inventory.gpus[i];
    out += fmt::format("{}{} ({})", i == 0 ? "" : ", ", gpu.index, gpu.uuid_text.substr(0, 22));
  }
  if (inventory.gpus.size() > kShown)
    out += fmt::format(" and {} more", inventory.gpus.size() - kShown);
  return out.empty() ? "none" : out;
}

// What may be a UUID or the beginning of one: with a digit of it, not only the word before them.
bool looks_like_uuid(std::string_view text) {
  if (text.starts_with("gpu-") || text.starts_with("mig-")) text.remove_prefix(4);
  return text.find_first_not_of("0123456789abcdef-") == std::string_view::npos &&
         text.find_first_not_of('-') != std::string_view::npos;
}

bool selects(const Gpu& gpu, std::string_view selector) {
  const bool instance = gpu.uuid_text.starts_with("MIG-");  // shares its GPU's index: only by UUID
  if (all_digits(selector) && selector.size() <= 3) {
    return !instance && std::to_string(gpu.index) == selector;
  }
  const std::string wanted = lower(selector);
  if (!looks_like_uuid(wanted)) return false;
  const std::string uuid = lower(gpu.uuid_text);
  const size_t dash = uuid.find('-');
  return uuid.starts_with(wanted) || std::string_view(uuid).substr(dash + 1).starts_with(wanted);
}

}  // namespace

std::string uuid_to_text(const Uuid& uuid, std::string_view prefix) {
  char digits[40];
  TextBuf text(digits, sizeof(digits));
  return fmt::format("{}-{}", prefix, text.uuid(uuid.data()).view());
}

bool uuid_from_text(std::string_view text, Uuid* uuid) {
  if (text.starts_with("GPU-") || text.starts_with("MIG-")) text.remove_prefix(4);
  size_t digits = 0;
  for (const char c : text) {
    if (c == '-') continue;
    const int value = std::isdigit(static_cast<unsigned char>(c)) != 0 ? c - '0'
                      : std::isxdigit(static_cast<unsigned char>(c)) != 0
                          ? std::tolower(static_cast<unsigned char>(c)) - 'a' + 10
                          : -1;
    if (value < 0 || digits == 32) return false;
    uint8_t& byte = (*uuid)[digits / 2];
    byte = static_cast<uint8_t>(digits % 2 == 0 ? value << 4 : byte | value);
    ++digits;
  }
  return digits == 32;
}

const Gpu& find_gpu(const Inventory& inventory, std::string_view flag, std::string_view selector) {
  const Gpu* found = nullptr;
  for (const Gpu& gpu : inventory.gpus) {
    if (!selects(gpu, selector)) continue;
    if (found != nullptr) {
      refuse("{}: '{}' is the beginning of several UUIDs; write more of it (see 'allot gpus')",
             flag, selector);
    }
    found = &gpu;
  }
  if (found == nullptr && !(all_digits(selector) && selector.size() <= 3) &&
      !looks_like_uuid(lower(selector))) {
    refuse(
        "{}: '{}' is neither the number of a GPU nor a UUID or its first digits; this machine "
        "has: {}; see 'allot gpus'",
        flag, shown(selector), list_of(inventory));
  }
  if (found == nullptr) {
    refuse("{}: no GPU '{}' on this machine, which has: {}; see 'allot gpus'", flag, selector,
           list_of(inventory));
  }
  return *found;
}

std::vector<ChosenGpu> choose_gpus(const Inventory& inventory, const SliceSpec& spec) {
  std::vector<ChosenGpu> chosen;
  for (const std::string& selector : spec.gpus) {
    const Gpu& gpu = find_gpu(inventory, "--gpu", selector);
    for (const ChosenGpu& other : chosen) {
      if (other.gpu == &gpu) {
        wrong_usage("--gpu: '{}' is GPU {} again; name each GPU once", selector, gpu.index);
      }
    }
    chosen.push_back({&gpu, ALLOT_UNLIMITED});
  }
  if (spec.gpus.empty()) {
    for (const Gpu& gpu : inventory.gpus) chosen.push_back({&gpu, ALLOT_UNLIMITED});
  }
  if (chosen.size() > ALLOT_MAX_GPUS) {
    refuse("--gpu: {} GPUs, but a slice holds at most {}; choose some with --gpu", chosen.size(),
           ALLOT_MAX_GPUS);
  }
  // A limit for every GPU first, so that one for a single GPU overrides it in any order.
  bool have_common = false;
  for (const MemoryLimit& limit : spec.memory) {
    if (!limit.gpu.empty()) continue;
    if (have_common)
      wrong_usage("--gpu-mem: given twice for every GPU; write GPU:SIZE for a single one");
    have_common = true;
    for (ChosenGpu& entry : chosen) entry.limit_bytes = limit.bytes;
  }
  std::vector<const Gpu*> seen;
  for (const MemoryLimit& limit : spec.memory) {
    if (limit.gpu.empty()) continue;
    const Gpu& gpu = find_gpu(inventory, "--gpu-mem", limit.gpu);
    const auto entry = std::find_if(chosen.begin(), chosen.end(),
                                    [&](const ChosenGpu& one) { return one.gpu == &gpu; });
    if (entry == chosen.end()) {
      wrong_usage("--gpu-mem: a limit for GPU {}, but --gpu leaves that GPU out; add it there",
                  limit.gpu);
    }
    if (std::find(seen.begin(), seen.end(), &gpu) != seen.end()) {
      wrong_usage("--gpu-mem: two limits for GPU {}; write one", gpu.index);
    }
    seen.push_back(&gpu);
    entry->limit_bytes = limit.bytes;
  }
  for (const ChosenGpu& entry : chosen) {
    if (entry.limit_bytes == ALLOT_UNLIMITED || entry.limit_bytes <= entry.gpu->total_bytes)
      continue;
    refuse(
        "--gpu-mem: {} is more than GPU {} has: {} ({} against {} bytes); write at most "
        "that",
        size_text(entry.limit_bytes), entry.gpu->index, size_text(entry.gpu->total_bytes),
        entry.limit_bytes, entry.gpu->total_bytes);
  }
  return chosen;
}

}  // namespace allot::cli
