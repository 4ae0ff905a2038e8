// An agent that ends between any two steps of taking, keeping or giving back its process's place on
// a GPU: when its thread is known to be lost, the place is there and says so, and nobody waits.
//
// The sources are compiled into this test: a program that makes a context, an agent and a prober
// run in every order of their steps, without threads, on a virtual clock. What they ask others
// stops them there. That it sees errors was tried by breaking the code: a context that nobody makes
// any more but that is not known yet (the place was given up, and nobody took it again); a loss
// that is not said again; a lock that stays the lost agent's.
#include <gtest/gtest.h>
#include <sched.h>

#include <cstring>
#include <memory>

#include "core/interleave.h"
#include "shim/process/log.h"
#include "shim/process/process.h"
#include "shim/process/submit_watch.h"
#include "shim/time/channels.h"
#include "shim/time/launch_gate.h"
#include "shim/time/prober.h"
#include "shim/time/rm_tracker.h"
#include "shim/time/streams.h"
#include "shm/time_view.h"
#include "sys/clock.h"

namespace allot::sys {
namespace {
uint64_t virtual_now_ns = 0;
uint64_t virtual_ns() {
  return virtual_now_ns;
}
}  // namespace
}  // namespace allot::sys

namespace allot::shim {
namespace {
void others_run();
}
}  // namespace allot::shim

#define monotonic_ns virtual_ns
#define sched_yield() ::allot::shim::others_run()
#include "shim/time/agent_watchdog.cc"
#include "shim/time/gpu_clients.cc"
#undef monotonic_ns
#undef sched_yield

namespace allot::shim {

constinit Process process;
constinit thread_local uint32_t hook_depth = 0;
void wait_for_start() {}

namespace {

using core::Interleaver;

constexpr uint64_t kLookNs = 250'000'000;

Activity the_activity;
int makers = 0;
bool context = false;
bool closed = false;

}  // namespace

// What they ask others: each is a place to stop.
Activity& activity_of(uint32_t) {
  Interleaver::step();
  return the_activity;
}
bool making_context_on(int) {
  Interleaver::step();
  return makers != 0;
}
bool has_context_on(CUdevice) {
  Interleaver::step();
  return context;
}
bool room_for_context() {
  return true;
}
void note_open(Activity&, bool, uint64_t) {}
void gate_open() {}
bool must_hold_time() {
  return closed;
}
bool time_limited() {
  return true;
}
void log_no_slice(const char*, int, bool) {}
bool rm_channels(int, RmChannels*, uint32_t) {
  return false;
}
uint32_t rm_generation() {
  return 1;
}
int rm_call(int, unsigned long, void*) {
  return -1;
}

namespace {

// One look of the prober: it asks about GPUs that it watches, and minds the agent while there is
// work.
void look() {
  sys::virtual_now_ns += kLookNs;
  if (!the_activity.watched.load()) return;
  if (context) the_activity.active.store(true);
  if (the_activity.active.load()) watch_agent();
}

// A thread that waits for another one lets it run, and the prober, too.
void others_run() {
  Interleaver::step();
  look();
}

class LostAgents : public testing::Test {
 protected:
  void SetUp() override {
#ifdef ALLOT_TEST_TSAN
    GTEST_SKIP() << "one thread only, on stacks that ThreadSanitizer does not know";
#endif
    process.slice.file = file_.get();
    process.slot = {0, 1};
    process.device_count = 1;
    process.devices[0].gpu = 0;
  }
  void TearDown() override {
    process.slice.file = nullptr;
  }

  void start() {
    memset(static_cast<void*>(file_->clients), 0, sizeof(file_->clients));
    file_->slot_words[0] = ALLOT_SLOT_WORD(ALLOT_SLOT_LIVE, 1, 4711);
    sys::virtual_now_ns = 1'000'000'000;
    forget_gpu_clients();
    forget_agent_watch();
    submit_watch.store(0);
    the_activity.client.store(nullptr);
    the_activity.watched.store(false);
    the_activity.active.store(false);
    makers = 0;
    context = false;
    killed_ = false;
    made_ = false;
  }

  // As create_on() and its callers in entry/contexts.cc.
  void make_context() {
    ++makers;
    made_ = ready_for_context(0);
    Interleaver::step();
    context = made_;
    Interleaver::step();
    --makers;
    Interleaver::step();
    submit();
  }
  void submit() {
    if (the_activity.watched.load()) the_activity.active.store(true);
  }
  void agent() {
    for (int round = 0; round < 3; ++round) {
      Interleaver::step();
      agent_runs();
      AllotGpuClient* client = client_on(0, context);
      if (client == nullptr) continue;
      core::store(client->level, uint32_t{ALLOT_LEVEL_CHANNEL});
      core::store(client->reason, uint32_t{ALLOT_REASON_NONE});
      sys::virtual_now_ns += 150'000'000;
    }
  }
  void prober(int looks) {
    for (int i = 0; i < looks; ++i) {
      Interleaver::step();
      look();
    }
  }

  bool loss_is_said() {
    for (int i = 0; i < 12; ++i) look();
    const AllotGpuClient* client = the_activity.client.load();
    return client != nullptr && core::load(client->reason) == ALLOT_REASON_NO_AGENT &&
           core::load(client->level) == ALLOT_LEVEL_OBSERVE &&
           ((submit_watch.load() & kRefuse) != 0) == closed;
  }

  std::unique_ptr<AllotSliceFile> file_{new AllotSliceFile()};
  bool killed_ = false;
  bool made_ = false;
};

TEST_F(LostAgents, AnAgentThatEndsAnywhereIsSaidToBeLost) {
  int losses = 0;
  for (const bool rule : {false, true}) {
    closed = rule;
    Interleaver all({3, 1});
    const uint64_t runs = all.explore([&] {
      start();
      Interleaver::Scenario scenario;
      scenario.threads = {
          {1, [this] { make_context(); }}, {2, [this] { agent(); }}, {1, [this] { prober(4); }}};
      scenario.may_be_killed = {2};
      scenario.on_kill = [this](uint32_t) { killed_ = true; };
      scenario.holds = [] { return true; };
      scenario.holds_end = [&] {
        if (!made_) return true;
        if (!killed_) return the_activity.client.load() != nullptr;
        ++losses;
        return loss_is_said();
      };
      return scenario;
    });
    EXPECT_FALSE(all.failed()) << all.order();
    EXPECT_GT(runs, 1'000u);
  }
  EXPECT_GT(losses, 1'000);
}

// It was only held for long: it takes its place up again, and says its own.
TEST_F(LostAgents, AnAgentThatRunsAgainHoldsAgain) {
  closed = true;
  start();
  make_context();
  agent();
  ASSERT_TRUE(loss_is_said());
  agent();
  const AllotGpuClient* client = the_activity.client.load();
  ASSERT_NE(client, nullptr);
  EXPECT_EQ(core::load(client->reason), uint32_t{ALLOT_REASON_NONE});
  EXPECT_EQ(submit_watch.load() & kRefuse, 0u);
}

}  // namespace
}  // namespace allot::shim
