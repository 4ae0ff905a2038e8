// Listings read a copy of each file, never a mapping: nothing that its owner does meanwhile can
// hurt the reader. Only this user's own files are opened for writing, to clean them up.
#include "cli/region/region_view.h"

#include <pwd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <numeric>

#include "abi/env.h"
#include "cli/failure.h"
#include "cli/output.h"
#include "cli/region/file_words.h"
#include "core/counters.h"
#include "core/shared.h"
#include "shm/living.h"
#include "shm/slice_file.h"
#include "sys/clock.h"
#include "sys/process.h"

namespace allot::cli {

using core::load;

namespace {

// The command line of a process, words joined by spaces; `fallback` where /proc has none.
std::string command_line(uint32_t pid, const std::string& fallback) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/cmdline", std::ios::binary);
  std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  while (!text.empty() && text.back() == '\0') text.pop_back();
  std::replace(text.begin(), text.end(), '\0', ' ');
  return harmless(text.empty() ? fallback : text);
}

std::string bounded_text(const char* bytes, size_t size) {
  return harmless(std::string_view(bytes, strnlen(bytes, size)));
}

std::string name_of(const std::string& path) {
  const size_t slash = path.rfind('/');
  std::string name = slash == std::string::npos ? path : path.substr(slash + 1);
  constexpr std::string_view kSuffix = ALLOT_REGION_SUFFIX;
  if (name.ends_with(kSuffix)) name.resize(name.size() - kSuffix.size());
  return harmless(name);
}

void copy_gpus(const AllotSliceFile& file, SliceView* view) {
  const uint32_t count = std::min(load(file.header.gpu_count), ALLOT_MAX_GPUS);
  for (uint32_t i = 0; i < count; ++i) {
    const AllotGpu& from = file.gpus[i];
    SliceGpuView gpu;
    std::memcpy(gpu.uuid.data(), from.uuid, gpu.uuid.size());
    gpu.index = static_cast<int>(std::min(load(from.index_plus_one), 1u << 16)) - 1;
    gpu.limit_bytes = load(from.limit_bytes);
    gpu.peak_bytes = load(from.peak_bytes);
    gpu.physical_bytes = load(from.physical_bytes);
    gpu.refused = load(from.refused);
    gpu.share_permille = load(from.share_permille);
    gpu.max_permille = load(from.max_permille);
    gpu.time_used_ns = load(from.time_used_ns);
    gpu.time_throttled_ns = load(from.time_throttled_ns);
    view->gpus.push_back(gpu);
  }
}

uint64_t idle_since(const AllotSlot& slot, const std::vector<ClientView>& clients) {
  for (const ClientView& client : clients) {
    if (client.active() || !client.answers) return 0;
  }
  const uint64_t last = load(slot.last_work_ns);
  const uint64_t begin = last != 0 ? last : load(slot.joined_unix_ns);
  const uint64_t now = last != 0 ? sys::monotonic_ns() : sys::realtime_ns();
  return now > begin ? now - begin : 0;
}

std::optional<AllotCounters> copy_counters(AllotSliceFile& file, uint32_t index, uint64_t word) {
  const AllotCounters* from = core::counters_of(file, index, word);
  if (from == nullptr) return std::nullopt;
  AllotCounters out = {};
  out.time_used_ns = load(from->time_used_ns);
  out.time_throttled_ns = load(from->time_throttled_ns);
  out.frozen_ns = load(from->frozen_ns);
  out.refused = load(from->refused);
  out.evictions = load(from->evictions);
  out.restores = load(from->restores);
  return out;
}

// The live slots, and what each GPU holds as the sum of their charges: the account word of a
// read-only file cannot be repaired, and its dead processes must not count.
void copy_processes(const shm::Slice& slice, SliceView* view) {
  const AllotSliceFile& file = *slice.file;
  const shm::Living living(slice);
  const Result<uint64_t> home = sys::pid_namespace(sys::Root{}, 0);
  const uint32_t high = std::min(load(file.header.slots_high), ALLOT_MAX_SLOTS);
  for (uint32_t i = 0; i < high; ++i) {
    const uint64_t word = __atomic_load_n(&file.slot_words[i], __ATOMIC_ACQUIRE);
    if (ALLOT_SLOT_STATE(word) != ALLOT_SLOT_LIVE) continue;
    const AllotSlot& slot = file.slots[i];
    ProcessView process;
    process.pid = ALLOT_SLOT_PID(word);
    if (!living.slot(i)) continue;
    for (const ClientView& client : view->clients) {
      if (client.slot != i || client.pid != process.pid) continue;
      process.clients.push_back(client);
      // The same on all GPUs, or not known yet on some.
      if (client.level == ALLOT_LEVEL_AUTO) continue;
      process.level = client.level;
      process.reason = client.reason;
    }
    process.foreign = home && load(slot.pid_namespace) != *home;
    const std::string name = bounded_text(slot.command, sizeof slot.command);
    process.command = process.foreign ? name : command_line(process.pid, name);
    process.evicted = load(slot.evicted);
    process.counters = copy_counters(*slice.file, i, word);
    const AllotSwap& swap = file.swaps[i];
    const bool swapped = process.evicted == ALLOT_EVICTED_FAST && load(swap.owner) == word;
    process.idle_ns = idle_since(slot, process.clients);
    process.unheld_gpus = load(slot.unheld_gpus);
    process.gpus_beyond = load(slot.gpus_beyond);
    process.full_tables = load(slot.full_tables);
    for (size_t gpu = 0; gpu < view->gpus.size(); ++gpu) {
      ByKind charges{};
      for (unsigned kind = 0; kind < ALLOT_KINDS; ++kind) {
        charges[kind] = load(slot.charges[gpu][kind]);
        view->gpus[gpu].by_kind[kind] += charges[kind];
        view->gpus[gpu].used_bytes += charges[kind];
      }
      const uint64_t held = std::accumulate(charges.begin(), charges.end(), uint64_t{0});
      const uint64_t on_host = swapped ? std::min(load(swap.movable[gpu]), held)
                               : process.evicted == ALLOT_EVICTED_DRIVER ? held
                                                                         : 0;
      view->gpus[gpu].host_bytes += on_host;
      process.host_bytes += on_host;
      process.charges.push_back(charges);
    }
    view->processes.push_back(std::move(process));
  }
}

SliceView copy_slice(const std::string& path, const shm::Slice& slice) {
  const AllotHeader& header = slice.file->header;
  SliceView view;
  view.path = path;
  view.name = bounded_text(header.name, sizeof header.name);
  view.uid = slice.owner_uid;
  view.user = owner_text(view.uid);
  view.flags = load(header.flags);
  view.priority = load(header.priority);
  view.level = load(header.level);
  view.launcher_pid = header.launcher_pid;
  view.created_unix_ns = header.created_unix_ns;
  view.unknown_symbols = load(header.unknown_symbols);
  view.counts = header.minor >= 5;
  view.frozen_ns = core::clock_ns(load(header.frozen_clock), sys::monotonic_ns());
  view.evictions = load(header.evictions);
  view.restores = load(header.restores);
  copy_gpus(*slice.file, &view);
  view.clients = read_clients(*slice.file);
  view.head_only = slice.head_only;
  if (slice.head_only) {
    for (size_t i = 0; i < view.gpus.size(); ++i)
      view.gpus[i].used_bytes = slice.file->gpus[i].account.used_bytes;
  } else {
    copy_processes(slice, &view);
  }
  view.launcher_alive = shm::Living(slice).launcher();
  const Result<uint64_t> home = sys::pid_namespace(sys::Root{}, 0);
  view.launcher_foreign = home && header.pid_namespace != *home;
  return view;
}

std::vector<std::string> slice_files(const std::string& folder) {
  std::vector<std::string> paths;
  shm::list_slices(
      folder.c_str(),
      [](void* context, const char* path) {
        static_cast<std::vector<std::string>*>(context)->emplace_back(path);
      },
      &paths);
  std::sort(paths.begin(), paths.end());
  return paths;
}

// Gives back what dead processes of the slice held; removes the slice when no process is left. True
// = removed.
bool tidy_up(const std::string& path) {
  Result<shm::Slice> slice = shm::open_slice(path.c_str(), true);
  if (!slice) {
    // A file of an earlier boot has no live process. We cannot judge a file of another version.
    return slice.error().code == Errc::kNotFound && shm::remove_slice(path.c_str(), 0).has_value();
  }
  bool removed = false;
  if (slice->owner_uid == geteuid()) {
    shm::reclaim_dead(*slice);
    removed = !shm::slice_in_use(*slice) && shm::remove_slice(path.c_str(), 0).has_value();
  }
  shm::unmap(*slice);
  return removed;
}

}  // namespace

namespace {

// A variable that leads nowhere is a slip of the fingers, and not "no slices".
void check_variable(const std::string& chosen) {
  constexpr const char* kName = ALLOT_ENV_DIR;
  if (chosen[0] != '/')
    refuse("{}={}: not an absolute path; write all of it, from '/' on", kName, shown(chosen));
  if (chosen.size() + ALLOT_NAME_BYTES + 8 > shm::kPathBytes)
    refuse("{}={}: {} bytes is too long; choose a shorter path", kName, shown(chosen),
           chosen.size());
  const size_t end = chosen.find_last_not_of('/');
  const size_t slash = chosen.rfind('/', end == std::string::npos ? 0 : end);
  const std::string parent = slash == 0 ? "/" : chosen.substr(0, slash);
  struct stat about = {};
  if (stat(parent.c_str(), &about) == 0 && S_ISDIR(about.st_mode)) return;
  refuse("{}={}: there is no folder {}; correct the variable, or make that folder", kName,
         shown(chosen), shown(parent));
}

}  // namespace

std::string owner_text(uint32_t uid) {
  const struct passwd* entry = getpwuid(uid);
  return entry != nullptr ? entry->pw_name : std::to_string(uid);
}

std::string region_folder(bool create) {
  char folder[shm::kPathBytes] = {};
  const char* chosen = std::getenv(ALLOT_ENV_DIR);
  if (chosen != nullptr && *chosen == '\0') chosen = nullptr;
  if (chosen != nullptr) check_variable(chosen);
  const Result<void> found = shm::region_folder(chosen, create, folder);
  if (found) return folder;
  if (found.error().code == Errc::kNotFound && !create) return "";
  const std::string where =
      chosen != nullptr ? fmt::format("{}={}", ALLOT_ENV_DIR, shown(chosen)) : std::string(folder);
  const std::string fault = folder_fault(folder);
  refuse(
      "{}: {}", where,
      fault.empty() ? describe(found.error()) + "; " + advice_for(found.error(), folder) : fault);
}

std::string slice_path(const std::string& folder, const std::string& name) {
  char path[shm::kPathBytes];
  const Result<void> made = shm::slice_path(folder.c_str(), name.c_str(), path);
  if (!made)
    refuse("{}/{}: {}; choose a shorter name or folder", folder, name, describe(made.error()));
  return path;
}

namespace {

// The name that a slice's file has in it; empty where it is no slice's file.
std::string name_in_header(const std::string& path) {
  AllotHeader header = {};
  std::ifstream file(path, std::ios::binary);
  if (!file.read(reinterpret_cast<char*>(&header), sizeof header)) return "";
  header.name[sizeof header.name - 1] = '\0';
  return header.magic == ALLOT_REGION_MAGIC && shm::valid_name(header.name) ? header.name : "";
}

// Why a file cannot be read, and whether what it promises may hold all the same.
UnreadableSlice unreadable(const std::string& path, const Error& error) {
  UnreadableSlice file{path, describe(error), shm::may_be_in_use(path.c_str())};
  struct stat about = {};
  if (lstat(path.c_str(), &about) != 0) return file;
  if (!S_ISREG(about.st_mode)) {
    return {path, kind_of_file(path) + ", not a slice's file; remove it", false};
  }
  if (error.code == Errc::kNoPermission) {
    file.reason = fmt::format("{}'s, and only they may read it", owner_text(about.st_uid));
  }
  const std::string meant = name_in_header(path);
  if (error.code == Errc::kDamaged && !meant.empty() && meant != name_of(path)) {
    file.reason = fmt::format("the file of slice '{0}' was renamed; rename it back: mv '{1}' '{2}'",
                              meant, path, slice_path(path.substr(0, path.rfind('/')), meant));
  }
  return file;
}

}  // namespace

RegionView read_region() {
  RegionView view;
  view.folder = region_folder(false);
  if (view.folder.empty()) return view;
  shm::clear_orphans(view.folder.c_str());
  for (const std::string& path : slice_files(view.folder)) {
    if (tidy_up(path)) {
      view.cleared.push_back(name_of(path));
      continue;
    }
    Result<shm::Slice> slice = shm::open_slice(path.c_str(), false);
    if (!slice) {
      // Gone between listing and opening: its program has just ended.
      if (slice.error().code != Errc::kNotFound)
        view.unreadable.push_back(unreadable(path, slice.error()));
      continue;
    }
    if (shm::slice_in_use(*slice)) {
      view.slices.push_back(copy_slice(path, *slice));
    } else {
      view.stale.push_back(name_of(path));
    }
    shm::unmap(*slice);
  }
  return view;
}

std::vector<std::string> slice_names() {
  std::vector<std::string> names;
  const std::string folder = region_folder(false);
  if (folder.empty()) return names;
  for (const std::string& path : slice_files(folder)) names.push_back(name_of(path));
  return names;
}

std::vector<std::string> clear_stale(const std::string& folder) {
  std::vector<std::string> cleared;
  for (const std::string& path : slice_files(folder)) {
    if (tidy_up(path)) cleared.push_back(name_of(path));
  }
  return cleared;
}

const char* SliceView::eviction_text() const {
  if (!evicted()) return "";
  for (const ProcessView& process : processes) {
    const auto holds = [](const ByKind& kinds) {
      return std::any_of(kinds.begin(), kinds.end(), [](uint64_t bytes) { return bytes > 0; });
    };
    const bool any = std::any_of(process.charges.begin(), process.charges.end(), holds);
    if (any && process.evicted == ALLOT_EVICTED_NOT) return "evicting";
  }
  return "evicted";
}

const char* SliceView::eviction_way() const {
  const bool fast = evicted() ? (flags & ALLOT_SLICE_EVICTED_FAST) != 0 : swaps_fast();
  return fast ? "fast" : "driver";
}

bool SliceView::refuses_unheld() const {
  const bool limited = std::any_of(gpus.begin(), gpus.end(), [](const SliceGpuView& gpu) {
    return gpu.share_permille != 0 || gpu.max_permille != 0;
  });
  return fail_closed() && (limited || frozen() || priority != ALLOT_PRIORITY_NORMAL);
}

const char* kind_text(unsigned kind) {
  static constexpr std::array<const char*, ALLOT_KINDS> kTexts = {
      "linear", "array", "managed", "pool", "vmm", "graph", "import", "driver"};
  return kind < kTexts.size() ? kTexts[kind] : "?";
}

std::string unheld_text(const SliceView& slice, const ProcessView& process) {
  std::string text;
  if (process.unheld_gpus != 0) {
    text = fmt::format("{}: more than {} GPU clients in this slice",
                       slice.refuses_unheld() ? "refused" : "not held", ALLOT_MAX_CLIENTS);
  }
  if (process.gpus_beyond != 0) {
    text += fmt::format("{}{} of the GPUs that it sees {} {}: a slice holds {}",
                        text.empty() ? "" : "; ", process.gpus_beyond,
                        process.gpus_beyond == 1 ? "is" : "are",
                        slice.fail_closed() ? "refused" : "not held", ALLOT_MAX_GPUS);
  }
  return text;
}

}  // namespace allot::cli
