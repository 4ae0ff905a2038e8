// See run_wait.h. Nobody wakes a waiting command: a slice that ends or shrinks does not know about
// it. What must not happen here: a slice that has work is evicted to make room; a slice is evicted
// in vain again and again. So each is tried once. A slice that another command moves at this moment
// does not count as tried.
#include "cli/launch/run_wait.h"

#include <unistd.h>

#include <csignal>
#include <set>

#include "cli/evict/evict.h"
#include "cli/failure.h"
#include "cli/log/deeds.h"
#include "cli/output.h"
#include "cli/region/open_slice.h"
#include "cli/region/region_view.h"
#include "sys/clock.h"

namespace allot::cli {
namespace {

constexpr long kRoomLookNs = 500'000'000;
constexpr double kOthersMoveSeconds = 5;  // wait for another command's move, even without --wait

// Sleeps, unless a signal ends the wait.
void pause_or_give_up() {
  sigset_t set;
  sigemptyset(&set);
  for (const int number : {SIGINT, SIGTERM, SIGHUP, SIGQUIT}) sigaddset(&set, number);
  const timespec look = {0, kRoomLookNs};
  const int number = sigtimedwait(&set, nullptr, &look);
  if (number > 0)
    throw Failure(kExitSignalBase + number, "run: stopped while waiting for its slice");
}

void refresh(Inventory* inventory, const DriverFiles& driver) {
  const Inventory now = ask_driver(driver);
  for (Gpu& gpu : inventory->gpus) {
    for (const Gpu& fresh : now.gpus) {
      if (fresh.uuid != gpu.uuid) continue;
      gpu.free_bytes = fresh.free_bytes;
      gpu.free_known = fresh.free_known;
    }
  }
}

bool idle_for(const SliceView& slice, double seconds) {
  for (const ProcessView& process : slice.processes) {
    if (static_cast<double>(process.idle_ns) < seconds * 1e9) return false;
  }
  return !slice.processes.empty();
}

bool holds_any_of(const SliceView& slice, const std::vector<ChosenGpu>& gpus) {
  for (const SliceGpuView& held : slice.gpus) {
    for (const ChosenGpu& wanted : gpus) {
      if (held.uuid == wanted.gpu->uuid && held.used_bytes > held.host_bytes) return true;
    }
  }
  return false;
}

enum class Room { kMade, kSoon, kNone };  // kSoon: another command moves one of them

Room evict_an_idle_one(const std::vector<ChosenGpu>& gpus, double seconds,
                       std::set<std::string>* tried,
                       const std::function<void(const std::string&)>& say) {
  Room room = Room::kNone;
  for (const SliceView& slice : read_region().slices) {
    if (slice.uid != geteuid() || slice.priority != ALLOT_PRIORITY_LOW || slice.evicted()) continue;
    // Without a launcher nobody would restore it.
    if (slice.launcher_pid <= 0 || !idle_for(slice, seconds) || !holds_any_of(slice, gpus))
      continue;
    if (!tried->insert(slice.name).second) continue;
    try {
      OpenSlice open("run", slice.name);
      MoveOptions move;
      move.timeout_seconds = 2;  // it was idle: if it does not stop at once, it has work again
      move.returns = true;
      const Moved moved = evict(open, slice.name, move);
      const std::string line = fmt::format(
          "evicted '{}', idle for at least {} s: {} in {:.2f} s; it returns when it has work",
          slice.name, seconds, size_text(moved.bytes), moved.seconds);
      log_deed({"evict", slice.name, DeedResult::kDone, line, {}});
      say(line);
      return Room::kMade;
    } catch (const NotNow&) {
      tried->erase(slice.name);
      room = Room::kSoon;
    } catch (const Failure& failure) {
      say(failure.line());
    }
  }
  return room;
}

}  // namespace

std::unique_ptr<SliceFile> make_slice(const std::string& name, const SliceSpec& spec,
                                      const Bounds& bounds, Inventory* inventory,
                                      const std::vector<ChosenGpu>& gpus, const DriverFiles& driver,
                                      const WaitOptions& options,
                                      const std::function<void(const std::string&)>& say) {
  const uint64_t begin = sys::monotonic_ns();
  std::set<std::string> tried;
  bool said = false;
  for (;;) {
    std::string why;
    try {
      return std::make_unique<SliceFile>(name, spec, bounds, gpus, inventory->software);
    } catch (const NotNow& not_now) {
      why = not_now.line();
      if (!options.asked()) throw;
    }
    const Room room = options.evict_idle_seconds < 0
                          ? Room::kNone
                          : evict_an_idle_one(gpus, options.evict_idle_seconds, &tried, say);
    const bool room_made = room == Room::kMade;
    const double waited = static_cast<double>(sys::monotonic_ns() - begin) / 1e9;
    const bool soon = room == Room::kSoon && waited < kOthersMoveSeconds;
    if (!room_made && !soon && !options.wait) throw NotNow(why);
    if (!room_made && options.timeout_seconds >= 0 && waited >= options.timeout_seconds) {
      throw Failure(kExitTimedOut, fmt::format("run: no room after {:.0f} s: {}", waited, why));
    }
    if (!room_made) {
      if (!said) say("waiting: " + why);
      said = true;
      pause_or_give_up();
    }
    refresh(inventory, driver);
  }
}

}  // namespace allot::cli
