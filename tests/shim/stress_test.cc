// Processes of a slice killed at any instant, by the thousand.
//
// Workers in two slices allocate, free, copy and wait on one software GPU under shares of its time;
// a parent kills one after another with SIGKILL at random moments and starts new ones. Every so
// often all stand still and the region is held against the truth: accounts equal a recount and
// cover what the living hold, no slot is lost, no client of the dead counts. In between everybody
// keeps running: nobody waits for the dead. The longest time that an allocation of a survivor took
// stands beside the same less what the kernel says its thread waited for a CPU
// (core/test_run_delay.h): on a busy machine that is most of it, and no waiting for the dead. The
// rest is the software GPU's: of 42 survivors seen asleep in an allocation for more than 5 ms each
// waited for its lock (whose holder, killed, had to get a CPU to die), none for anything of the
// region. What the region alone costs a survivor is measured by ledger_kill_test.
//
// ALLOT_STRESS_ROUNDS=10000 (./dev stress) makes it long; ALLOT_STRESS_SEED repeats the kills; with
// ALLOT_STRESS_OUT=FILE the figures are written there as JSON.
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <random>
#include <thread>
#include <vector>

#include "core/test_run_delay.h"
#include "shm/time_view.h"
#include "sys/clock.h"
#include "tests/shim/harness.h"

namespace allot::shim_test {
namespace {

constexpr uint32_t kWorkers = 6;  // even ones in slice a, odd ones in b
constexpr uint32_t kCheckEvery = 25;
// Three workers' blocks and contexts of 16 MiB fit, but not a fourth's: what the dead held has to
// come back.
constexpr uint64_t kHeldMost = 160 * kMiB;
constexpr uint64_t kLimit = 640 * kMiB;

struct Board {
  struct Place {
    std::atomic<uint64_t> operations;
    std::atomic<uint64_t> held_bytes;
    std::atomic<uint64_t> longest_ns;
    std::atomic<uint64_t> longest_own_ns;  // less the waiting for a CPU
    std::atomic<bool> still;
  };
  Place places[kWorkers];
  std::atomic<bool> halt;
};

Board* map_board(const std::string& path) {
  const int fd = open(path.c_str(), O_RDWR | O_CREAT, 0600);
  if (fd < 0 || ftruncate(fd, sizeof(Board)) != 0) return nullptr;
  void* at = mmap(nullptr, sizeof(Board), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  close(fd);
  return at == MAP_FAILED ? nullptr : static_cast<Board*>(at);
}

class Worker {
 public:
  Worker(Board& board, uint32_t index) : board_(board), place_(board.places[index]) {
    random_.seed(index * 7919u + static_cast<uint32_t>(getpid()));
    start_cuda(cuda_);
    set_ = reinterpret_cast<Set>(dlsym(cuda_.library, "cuMemsetD32_v2"));
  }

  void go_on() {
    for (;;) {
      if (board_.halt.load()) stand_still();
      if (random_() % 3 == 0) give();
      timed([&] { take(); });
      if (random_() % 8 == 0 && !blocks_.empty()) work();  // may wait for the slice's window
      place_.operations.fetch_add(1);
    }
  }

 private:
  using Set = CUresult (*)(CUdeviceptr, unsigned, size_t);
  struct Block {
    CUdeviceptr at;
    uint64_t bytes;
  };

  template <class F>
  void timed(F operation) {
    const core::RunDelay::Took took = run_delay_.time(operation);
    if (took.wall_ns > place_.longest_ns.load()) place_.longest_ns.store(took.wall_ns);
    if (took.own_ns > place_.longest_own_ns.load()) place_.longest_own_ns.store(took.own_ns);
  }

  void take() {
    const uint64_t bytes = uint64_t{1} << (9 + random_() % 16);
    if (place_.held_bytes.load() + bytes > kHeldMost) return give();
    CUdeviceptr at = 0;
    const CUresult result = cuda_.cuMemAlloc_v2(&at, bytes);
    if (result == CUDA_ERROR_OUT_OF_MEMORY) return give();  // small blocks take whole pages
    if (result != CUDA_SUCCESS) _exit(static_cast<int>(result % 250));
    blocks_.push_back({at, bytes});
    place_.held_bytes.fetch_add(bytes);
  }

  void give() {
    if (blocks_.empty()) return;
    const size_t i = random_() % blocks_.size();
    place_.held_bytes.fetch_sub(blocks_[i].bytes);
    if (cuda_.cuMemFree_v2(blocks_[i].at) != CUDA_SUCCESS) _exit(71);
    blocks_[i] = blocks_.back();
    blocks_.pop_back();
  }

  void work() {
    if (set_(blocks_[0].at, 1, 64) != CUDA_SUCCESS) _exit(72);
    if (cuda_.cuCtxSynchronize() != CUDA_SUCCESS) _exit(73);
  }

  void stand_still() {
    place_.still.store(true);
    while (board_.halt.load()) usleep(500);
    place_.still.store(false);
  }

  Cuda cuda_;
  Board& board_;
  Board::Place& place_;
  core::RunDelay run_delay_;
  Set set_ = nullptr;
  std::minstd_rand random_;
  std::vector<Block> blocks_;
};

CASE(StressWorker) {
  Board* board = map_board(case_arguments().at(0));
  if (board == nullptr) _exit(60);
  Worker(*board, static_cast<uint32_t>(std::stoul(case_arguments().at(1)))).go_on();
}

uint64_t number_of(const char* name, uint64_t otherwise) {
  const char* text = std::getenv(name);
  return text != nullptr ? std::strtoull(text, nullptr, 10) : otherwise;
}

class Stress {
 public:
  Stress() : path_(machine_folder() + "/board"), board_(map_board(path_)) {
    seed_ = number_of("ALLOT_STRESS_SEED", std::random_device{}());
    random_.seed(seed_);
    for (uint32_t i = 0; i < kWorkers; ++i) start(i);
  }
  ~Stress() {
    for (uint32_t i = 0; i < kWorkers; ++i) kill_one(i);
  }

  uint64_t seed() const { return seed_; }

  // All workers have done something since.
  bool all_go_on() {
    uint64_t before[kWorkers];
    for (uint32_t i = 0; i < kWorkers; ++i) before[i] = board_->places[i].operations.load();
    return wait_until([&] {
      for (uint32_t i = 0; i < kWorkers; ++i) {
        if (board_->places[i].operations.load() == before[i]) return false;
      }
      return true;
    });
  }

  struct Longest {
    double ms = 0;
    double own_ms = 0;  // less the waiting for a CPU
  };
  // The longest allocations since the last call, of anybody.
  Longest longest() {
    uint64_t all = 0, own = 0;
    for (auto& place : board_->places) {
      all = std::max(all, place.longest_ns.exchange(0));
      own = std::max(own, place.longest_own_ns.exchange(0));
    }
    return {static_cast<double>(all) / 1e6, static_cast<double>(own) / 1e6};
  }

  void one_round() {
    std::this_thread::sleep_for(std::chrono::microseconds(random_() % 3000));  // the random instant
    const uint32_t victim = static_cast<uint32_t>(random_() % kWorkers);
    kill_one(victim);
    start(victim);
  }

  void check() {
    board_->halt.store(true);
    EXPECT_TRUE(wait_until([&] {
      for (auto& place : board_->places) {
        if (!place.still.load()) return false;
      }
      return true;
    })) << "somebody is stuck";
    check_slice("a", 0);
    check_slice("b", 1);
    board_->halt.store(false);
  }

  // After the last: nothing is left, in the accounts or on the card.
  void check_empty() {
    for (uint32_t i = 0; i < kWorkers; ++i) kill_one(i);
    for (const char* name : {"a", "b"}) {
      auto slice = shm::open_slice(file(name).c_str(), true);
      // A worker that was just starting clears away a slice in which nobody is left.
      if (!slice && access(file(name).c_str(), F_OK) != 0) continue;
      ASSERT_TRUE(slice) << name;
      shm::reclaim_dead(*slice);
      EXPECT_EQ(core::Ledger(slice->file).used(0), 0u) << name;
      shm::unmap(*slice);
    }
  }

 private:
  std::string file(const std::string& name) const {
    return machine_folder() + "/region/" + name + ".slice";
  }

  void start(uint32_t index) {
    Board::Place& place = board_->places[index];
    place.held_bytes.store(0);
    place.still.store(false);
    Environment environment = slice_environment(
        {.memory = std::to_string(kLimit), .more = {{"ALLOT_SIM_CONTEXT", "16M"}}});
    environment["ALLOT_NAME"] = index % 2 == 0 ? "a" : "b";
    environment["ALLOT_GPU_SHARE"] = "50";
    running_[index] = start_case("StressWorker", environment, {path_, std::to_string(index)});
  }

  void kill_one(uint32_t index) {
    Running& worker = running_[index];
    if (worker.pid <= 0) return;
    int status = 0;
    const bool ended = waitpid(worker.pid, &status, WNOHANG) == worker.pid;
    EXPECT_FALSE(ended) << "worker " << index << " ended by itself: " << status;
    if (!ended) {
      kill(worker.pid, SIGKILL);
      waitpid(worker.pid, &status, 0);
    }
    close(worker.in);
    close(worker.out);
    worker.pid = -1;
  }

  void check_slice(const char* name, uint32_t first) {
    auto slice = shm::open_slice(file(name).c_str(), true);
    ASSERT_TRUE(slice) << name;
    shm::reclaim_dead(*slice);
    core::Ledger ledger(slice->file);
    uint64_t held = 0, live = 0;
    for (uint32_t i = first; i < kWorkers; i += 2) held += board_->places[i].held_bytes.load();
    for (const uint64_t word : slice->file->slot_words) {
      if (ALLOT_SLOT_STATE(word) != ALLOT_SLOT_FREE) ++live;
    }
    const uint64_t used = ledger.used(0);
    EXPECT_EQ(used, ledger.recount(0)) << name;
    EXPECT_GE(used, held) << name;
    EXPECT_LE(used, kLimit) << name;
    EXPECT_EQ(live, kWorkers / 2) << name << ": a slot of the dead was not freed";
    uint64_t clients = 0;
    for (const AllotGpuClient& client : slice->file->clients) {
      if (client.owner != 0 && client.slot < ALLOT_MAX_SLOTS &&
          slice->file->slot_words[client.slot] == client.owner) {
        ++clients;
      }
    }
    EXPECT_EQ(clients, kWorkers / 2) << name;
    shm::unmap(*slice);
  }

  std::string path_;
  Board* board_;
  uint64_t seed_ = 0;
  std::mt19937_64 random_;
  Running running_[kWorkers] = {};
};

TEST(Stress, KilledAtAnyInstantNobodyWaitsAndNothingIsLost) {
  const uint64_t rounds = number_of("ALLOT_STRESS_ROUNDS", 40);
  Stress stress;
  SCOPED_TRACE("ALLOT_STRESS_SEED=" + std::to_string(stress.seed()));
  ASSERT_TRUE(stress.all_go_on());
  const auto begin = std::chrono::steady_clock::now();
  stress.longest();
  std::this_thread::sleep_for(
      std::chrono::milliseconds(500));  // a time without kills, to compare with
  const Stress::Longest quiet = stress.longest();
  Stress::Longest longest;
  uint64_t checks = 0;
  for (uint64_t round = 1; round <= rounds && !testing::Test::HasFailure(); ++round) {
    stress.one_round();
    if (round % kCheckEvery != 0) continue;
    ASSERT_TRUE(stress.all_go_on()) << "round " << round;
    const Stress::Longest now = stress.longest();
    longest = {std::max(longest.ms, now.ms), std::max(longest.own_ms, now.own_ms)};
    stress.check();
    ++checks;
  }
  stress.check_empty();
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  char line[512];
  std::snprintf(
      line, sizeof(line),
      "{\"rounds\": %llu, \"checks\": %llu, \"stuck\": 0, \"seconds\": %.1f, \"seed\": %llu, "
      "\"longest_allocation_ms\": %.2f, \"less_waiting_for_a_cpu_ms\": %.2f, "
      "\"longest_without_kills_ms\": %.2f, \"less_waiting_for_a_cpu_without_kills_ms\": %.2f, "
      "\"workers\": %u}\n",
      static_cast<unsigned long long>(rounds), static_cast<unsigned long long>(checks), seconds,
      static_cast<unsigned long long>(stress.seed()), longest.ms, longest.own_ms, quiet.ms,
      quiet.own_ms, kWorkers);
  std::printf("%s", line);
  if (const char* out = std::getenv("ALLOT_STRESS_OUT")) std::ofstream(out) << line;
}

}  // namespace
}  // namespace allot::shim_test
