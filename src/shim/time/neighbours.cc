// See neighbours.h.
#include "shim/time/neighbours.h"

#include <string_view>

#include "base/text.h"
#include "shim/time/neighbour_words.h"
#include "shm/region_folder.h"
#include "sys/clock.h"

namespace allot::shim {
namespace {

constexpr uint32_t kMost = core::kMaxSlicesOnGpu;
constexpr uint32_t kPlaces = ALLOT_MAX_GPUS * kMost;  // all that can be weighed on all GPUs
constexpr uint64_t kRoundNs = 1'000'000;              // what was read so long ago is read again
constexpr uint64_t kScanEveryNs = 100'000'000;
constexpr uint64_t kScanPause = 100;  // times what the scan took: 1 % of the time
constexpr uint64_t kLongestPauseNs = 2'000'000'000;
constexpr uint64_t kScanBurstNs = 1'000'000;
constexpr uint64_t kFirstBurstNs = 10'000'000;  // of the first on a GPU: nothing has to be held yet
constexpr uint64_t kForgetGpuNs = 1'000'000'000;

// A GPU that we are asked about, and who is awake on it, by age.
struct Watched {
  uint8_t uuid[16];
  bool used;
  bool fresh;  // not handed out since it was read
  uint64_t asked_ns;
  uint32_t count;
  Neighbour awake[kMost];
};

// What a slice said at the last look.
struct Word {
  uint64_t id;
  uint64_t told;  // as a number
  uint32_t on;    // the GPUs of ours on which it is awake, a bit each
};

// A slice that is awake on one of them.
struct Place {
  char name[ALLOT_NAME_BYTES + sizeof(ALLOT_REGION_SUFFIX)];  // empty = free
  Word word;
};

struct Scan {
  bool wanted;
  bool under_way;
  uint64_t position;  // in the folder
  uint64_t cost_ns;   // CPU time, of the one under way or the last
  uint64_t ended_ns;
};

struct Tables {
  char folder[shm::kPathBytes];
  const char* own_name;  // in own_path
  char own_path[shm::kPathBytes];
  Watched gpus[ALLOT_MAX_GPUS];
  Place places[kPlaces];
  uint32_t places_high;
  uint64_t read_ns;
  bool rang;
  Scan scan;
  uint64_t now_ns;  // of the look under way
  uint64_t home;    // our pid namespace
  uint8_t boot[16];
};

constinit Tables all = {};
constinit shm::TimeView view = {};

// Puts it among the oldest kMost, in order.
void weigh(Watched& gpu, const Neighbour& one) {
  uint32_t at = gpu.count < kMost ? gpu.count++ : kMost;
  if (at == kMost && one.slice.id >= gpu.awake[kMost - 1].slice.id) return;
  if (at == kMost) --at;
  for (; at > 0 && gpu.awake[at - 1].slice.id > one.slice.id; --at)
    gpu.awake[at] = gpu.awake[at - 1];
  gpu.awake[at] = one;
}

// Whether one of the slices that are weighed has this id, on one of these GPUs.
bool weighed(const Word& word) {
  for (uint32_t i = 0; i < ALLOT_MAX_GPUS; ++i) {
    const Watched& gpu = all.gpus[i];
    if ((word.on & 1u << i) == 0 || !gpu.used) continue;
    if (gpu.count < kMost || word.id <= gpu.awake[kMost - 1].slice.id) return true;
  }
  return false;
}

// Weighs the slice in `view` on each GPU of ours on which it is awake.
Word take_in() {
  Word word = {};
  if (__builtin_memcmp(view.header.boot_id, all.boot, sizeof(all.boot)) != 0) return word;
  bool awake = false;
  for (const AllotGpuClient& client : view.clients) {
    awake = awake ||
            (client.owner != 0 && (client.flags & (ALLOT_CLIENT_ACTIVE | ALLOT_CLIENT_AWAKE)) != 0);
  }
  for (uint32_t i = 0; i < ALLOT_MAX_GPUS && awake; ++i) {
    Watched& gpu = all.gpus[i];
    Neighbour one;
    if (!gpu.used ||
        !summarise(view.header, view.gpus, view.clients, gpu.uuid, all.now_ns, all.home, &one)) {
      continue;
    }
    if (!one.slice.awake) continue;
    word.id = one.slice.id;
    word.told = (word.told ^ (told_by(one.slice) + i)) * 1099511628211u;
    word.on |= 1u << i;
    weigh(gpu, one);
  }
  return word;
}

bool path_of(const Place& place, char* out) {
  TextBuf text(out, shm::kPathBytes);
  text.text(all.folder).put('/').text(place.name);
  return !text.cut();
}

// All who have a place. Returns whether one of them says something else than last time.
bool read_places() {
  bool changed = false;
  for (uint32_t i = 0; i < all.places_high; ++i) {
    Place& place = all.places[i];
    if (place.name[0] == '\0') continue;
    char path[shm::kPathBytes];
    const Word word = path_of(place, path) && shm::read_time_view(path, &view) ? take_in() : Word{};
    changed = changed || word.told != place.word.told;
    place.word = word;
  }
  for (uint32_t i = 0; i < all.places_high; ++i) {
    if (!weighed(all.places[i].word)) all.places[i].name[0] = '\0';
  }
  while (all.places_high > 0 && all.places[all.places_high - 1].name[0] == '\0') --all.places_high;
  return changed;
}

bool has_place(std::string_view name) {
  for (uint32_t i = 0; i < all.places_high; ++i) {
    if (name == all.places[i].name) return true;
  }
  return false;
}

void give_place(std::string_view name, const Word& word) {
  uint32_t free = 0;
  while (free < all.places_high && all.places[free].name[0] != '\0') ++free;
  if (free == kPlaces) return;  // of some who are not weighed any more: the next scan finds room
  if (free == all.places_high) ++all.places_high;
  TextBuf(all.places[free].name, sizeof(all.places[free].name)).text(name);
  all.places[free].word = word;
}

// One file of the folder. False when the scan has to pause.
bool consider(void* context, int folder, const char* file_name) {
  const uint64_t begin_ns = *static_cast<const uint64_t*>(context);
  const std::string_view name = file_name;
  if (name.size() >= sizeof(Place::name) || name == all.own_name || has_place(name)) return true;
  if (shm::read_time_view_at(folder, file_name, &view)) {
    const Word word = take_in();
    if (weighed(word)) give_place(name, word);
  }
  const uint64_t most = all.scan.ended_ns == 0 ? kFirstBurstNs : kScanBurstNs;
  return sys::monotonic_ns() - begin_ns < most;
}

void go_on_with_scan() {
  Scan& scan = all.scan;
  const uint64_t begin_ns = sys::monotonic_ns();
  if (!scan.under_way) {
    const uint64_t cost = scan.cost_ns * kScanPause;
    const uint64_t pause = cost < kLongestPauseNs ? cost : kLongestPauseNs;
    const uint64_t every = scan.wanted ? 0 : kScanEveryNs;
    if (scan.ended_ns != 0 && begin_ns - scan.ended_ns < (pause > every ? pause : every)) return;
    scan = {false, true, 0, 0, scan.ended_ns};
  }
  const uint64_t cpu_begin_ns = sys::thread_cpu_ns();
  uint64_t begin = begin_ns;
  const bool done =
      all.folder[0] == '\0' || shm::list_slices_from(all.folder, &scan.position, consider, &begin);
  scan.cost_ns += sys::thread_cpu_ns() - cpu_begin_ns;
  if (!done) return;
  scan.under_way = false;
  scan.ended_ns = sys::monotonic_ns();
}

// The entry of a GPU; a new one makes the next round look for all who are on it.
Watched& watched(const uint8_t uuid[16], uint64_t now_ns) {
  Watched* free = &all.gpus[0];
  for (Watched& gpu : all.gpus) {
    if (gpu.used && __builtin_memcmp(gpu.uuid, uuid, 16) == 0) return gpu;
    if (free->used && (!gpu.used || gpu.asked_ns < free->asked_ns)) free = &gpu;
  }
  free->used = true;
  free->fresh = false;
  free->count = 0;
  free->asked_ns = now_ns;
  __builtin_memcpy(free->uuid, uuid, 16);
  all.scan = {true, false, 0, 0, 0};
  return *free;
}

// Reads everything anew, for all GPUs.
void read_round(const AllotSliceFile& own, uint64_t now_ns) {
  all.now_ns = now_ns;
  all.read_ns = now_ns;
  all.home = own.header.pid_namespace;
  __builtin_memcpy(all.boot, own.header.boot_id, sizeof(all.boot));
  for (Watched& gpu : all.gpus) {
    if (gpu.used && gpu.asked_ns + kForgetGpuNs < now_ns) gpu.used = false;
    gpu.count = 0;
    gpu.fresh = gpu.used;
  }
  const bool changed = read_places();
  if (all.rang && !changed) all.scan.wanted = true;
  all.rang = false;
  go_on_with_scan();
}

}  // namespace

void neighbours_in(const char* own_path) {
  for (uint32_t i = 0; i < all.places_high; ++i) all.places[i].name[0] = '\0';
  for (Watched& gpu : all.gpus) gpu.used = false;
  all.places_high = 0;
  all.read_ns = 0;
  all.rang = false;
  all.scan = {};
  all.folder[0] = '\0';
  TextBuf(all.own_path, sizeof(all.own_path)).text(own_path);
  shm::SplitPath parts;
  all.own_name = all.own_path;
  if (!shm::split_path(all.own_path, &parts)) return;
  all.own_name = parts.name;
  TextBuf(all.folder, sizeof(all.folder)).text(parts.folder);
}

void neighbours_changed() {
  all.scan.wanted = true;
}

void neighbours_rang() {
  all.rang = true;
}

uint32_t look_at_neighbours(const AllotSliceFile& own, const uint8_t uuid[16], uint64_t now_ns,
                            std::span<Neighbour> out) {
  Watched& gpu = watched(uuid, now_ns);
  gpu.asked_ns = now_ns;
  const bool old = now_ns - all.read_ns > kRoundNs && all.read_ns - now_ns > kRoundNs;
  if (!gpu.fresh || old) read_round(own, now_ns);
  gpu.fresh = false;
  if (!summarise(own.header, own.gpus, own.clients, uuid, now_ns, own.header.pid_namespace,
                 &out[0])) {
    out[0] = {};
  }
  out[0].fits = gpu.count < kMost || out[0].slice.id < gpu.awake[kMost - 1].slice.id;
  uint32_t count = 1;
  for (uint32_t i = 0; i < gpu.count && count < out.size(); ++i) out[count++] = gpu.awake[i];
  return count;
}

void notify_neighbours() {
  char path[shm::kPathBytes];
  for (uint32_t i = 0; i < all.places_high; ++i) {
    if (all.places[i].name[0] != '\0' && path_of(all.places[i], path)) shm::notify_other(path);
  }
}

}  // namespace allot::shim
