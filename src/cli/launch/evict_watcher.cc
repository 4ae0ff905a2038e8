// See evict_watcher.h. It reads the file ten times a second: a process that wants to resume has
// waited for its memory to be moved out and back, which takes longer than that.
#include "cli/launch/evict_watcher.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <climits>
#include <csignal>
#include <cstdio>

#include "cli/evict/evict.h"
#include "cli/failure.h"
#include "cli/log/deeds.h"
#include "cli/output.h"

namespace allot::cli {
namespace {

constexpr auto kLook = std::chrono::milliseconds(100);
constexpr uint32_t kFileEvery = 5;  // looks: twice a second

bool wanted(const AllotSliceFile& file) {
  constexpr uint32_t kBoth = ALLOT_SLICE_EVICTED | ALLOT_SLICE_RETURNS;
  if ((__atomic_load_n(&file.header.flags, __ATOMIC_ACQUIRE) & kBoth) != kBoth) return false;
  const uint32_t high = __atomic_load_n(&file.header.slots_high, __ATOMIC_RELAXED);
  for (uint32_t i = 0; i < high && i < ALLOT_MAX_SLOTS; ++i) {
    const uint64_t word = __atomic_load_n(&file.slot_words[i], __ATOMIC_ACQUIRE);
    if (ALLOT_SLOT_STATE(word) != ALLOT_SLOT_LIVE) continue;
    if (__atomic_load_n(&file.slots[i].wants, __ATOMIC_ACQUIRE) != 0) return true;
  }
  return false;
}

}  // namespace

LifeWatch::LifeWatch(std::string name, int file, bool signals)
    : name_(std::move(name)), file_(file), signals_(signals) {
  thread_ = std::thread([this] { run(); });
}

LifeWatch::~LifeWatch() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    quit_ = true;
  }
  changed_.notify_one();
  thread_.join();
}

bool LifeWatch::take_signal(int number) {
  if (!signals_ || (number != SIGUSR1 && number != SIGUSR2)) return false;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    order_ = number == SIGUSR2 ? Order::kEvict : Order::kRestore;
  }
  changed_.notify_one();
  return true;
}

void LifeWatch::obey(OpenSlice& slice, Order order) {
  try {
    logged(order == Order::kEvict ? "evict" : "restore", name_, [&] {
      const bool out = order == Order::kEvict;
      const Moved moved = out ? evict(slice, name_, {}) : restore(slice, name_, {});
      return fmt::format("{} by a signal to 'allot run': {}", out ? "evicted" : "restored",
                         size_text(moved.bytes));
    });
  } catch (const std::exception& failure) {
    note(failure.what());
  }
}

void LifeWatch::restore_if_wanted(OpenSlice& slice) {
  if (!wanted(*slice->file)) return;
  try {
    MoveOptions move;
    move.timeout_seconds = 5;
    const Moved moved = restore(slice, name_, move);
    log_deed({"restore",
              name_,
              DeedResult::kDone,
              "restored because it has work: " + size_text(moved.bytes),
              {}});
    said_ = false;
  } catch (const std::exception& failure) {
    if (!said_) {
      log_deed({"restore", name_, DeedResult::kRefused, failure.what(), {}});
      note(std::string(failure.what()) + "; tried again until there is room");
    }
    said_ = true;
  }
}

// A file that lost its name takes its slice along: no command finds it, no process can join it, and
// its share is not counted.
void LifeWatch::look_for_file(const OpenSlice& slice) {
  if (file_ < 0 || said_gone_) return;
  struct stat now = {};
  struct stat held = {};
  const char* path = slice.path().c_str();
  if (fstat(file_, &held) != 0) return;
  const bool there = stat(path, &now) == 0;
  if (there && now.st_ino == held.st_ino && now.st_dev == held.st_dev) return;
  char where[PATH_MAX] = {};
  const ssize_t length =
      readlink(fmt::format("/proc/self/fd/{}", file_).c_str(), where, sizeof where - 1);
  if (held.st_nlink > 0 && length > 0 && !there &&
      renameat2(AT_FDCWD, where, AT_FDCWD, path, RENAME_NOREPLACE) == 0) {
    note(fmt::format("the slice's file was moved to {}; it is back at {}", harmless(where), path));
    return;
  }
  said_gone_ = true;
  const std::string why =
      held.st_nlink > 0 ? fmt::format("moved to {}", harmless(where))
      : slice.path().starts_with("/dev/shm/")
          ? "removed, perhaps at a logout (RemoveIPC in logind.conf(5); it spares /run/allot)"
          : "removed";
  note(fmt::format(
      "the slice's file {} was {}: what runs is held on, but no command finds the slice, no new "
      "process can join it, and its share is not counted; start it again",
      path, why));
}

// Programs only count: the first refusal is logged at once, later ones together.
void LifeWatch::log_refusals(const AllotSliceFile& file, bool last) {
  constexpr auto kTogether = std::chrono::seconds(60);
  uint64_t refused = 0;
  for (const AllotGpu& gpu : file.gpus) refused += __atomic_load_n(&gpu.refused, __ATOMIC_RELAXED);
  const auto now = std::chrono::steady_clock::now();
  const bool due = refused_logged_ == 0 || last || now - refused_at_ >= kTogether;
  if (refused <= refused_logged_ || !due) return;
  const uint64_t more = refused - refused_logged_;
  log_deed({"allocate",
            name_,
            DeedResult::kRefused,
            fmt::format("{} request{} of its programs for GPU memory, at the slice's limit", more,
                        more == 1 ? "" : "s"),
            {{"ALLOT_REFUSED", std::to_string(refused)}}});
  refused_logged_ = refused;
  refused_at_ = now;
}

void LifeWatch::look_until_the_end(OpenSlice& slice) {
  std::unique_lock<std::mutex> lock(mutex_);
  uint32_t looks = 0;
  while (!quit_) {
    changed_.wait_for(lock, kLook, [this] { return quit_ || order_ != Order::kNone; });
    log_refusals(*slice->file, quit_);
    if (quit_) break;
    const Order order = order_;
    order_ = Order::kNone;
    lock.unlock();
    if (order == Order::kNone) {
      if (++looks % kFileEvery == 0) look_for_file(slice);
      restore_if_wanted(slice);
    } else {
      obey(slice, order);
    }
    lock.lock();
  }
}

void LifeWatch::run() {
  try {
    OpenSlice slice("run", name_);
    look_until_the_end(slice);
  } catch (const std::exception& failure) {
    note(failure.what());  // the program runs on, without us
  }
}

}  // namespace allot::cli
