#include "model/runqueue.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <random>

namespace allot::model {
namespace {

constexpr SchedForm kForms[] = {SchedForm::k2_6_23, SchedForm::kToday};

TEST(RunQueues, RefusesAMaskWithoutAnOnlineCpu) {
  for (SchedForm form : kForms) {
    RunQueues rqs(Mask{0, 1}, form);
    ASSERT_EQ(rqs.add(1, Mask{0, 1}), 0);
    EXPECT_EQ(rqs.set_cpus_allowed(1, Mask{5}), EINVAL);
    EXPECT_EQ(rqs.find(1)->allowed, (Mask{0, 1}));
    EXPECT_EQ(rqs.set_cpus_allowed(9, Mask{0}), ESRCH);
  }
}

TEST(RunQueues, TaskOnAnAllowedCpuStays) {
  RunQueues rqs(Mask{0, 1, 2}, SchedForm::k2_6_23);
  ASSERT_EQ(rqs.add(1, Mask{1}), 0);
  ASSERT_EQ(rqs.set_cpus_allowed(1, Mask{1, 2}), 0);
  EXPECT_EQ(rqs.find(1)->cpu, 1);
  EXPECT_TRUE(rqs.migrations().empty());
}

// Case 1: it neither runs nor waits. 2.6.23 sets its CPU, today it keeps the forbidden one
// until it wakes.
TEST(RunQueues, SleepingTaskIsCaseOne) {
  RunQueues old_form(Mask{0, 1, 2, 3}, SchedForm::k2_6_23);
  RunQueues today(Mask{0, 1, 2, 3}, SchedForm::kToday);
  for (RunQueues* rqs : {&old_form, &today}) {
    ASSERT_EQ(rqs->add(1, Mask{0}), 0);
    rqs->sleep(1);
    bool pending = true;
    ASSERT_EQ(rqs->start_set_cpus_allowed(1, Mask{2, 3}, &pending), 0);
    EXPECT_FALSE(pending);
  }
  EXPECT_EQ(old_form.find(1)->cpu, 2);
  EXPECT_EQ(today.find(1)->cpu, 0);
  today.wake(1);
  EXPECT_TRUE((Mask{2, 3}).test(today.find(1)->cpu));
}

// Case 2: the request waits at the source CPU until its migration thread runs.
TEST(RunQueues, RunningTaskIsMovedByTheMigrationThread) {
  for (SchedForm form : kForms) {
    RunQueues rqs(Mask{0, 1, 2}, form);
    ASSERT_EQ(rqs.add(1, Mask{0}), 0);
    bool pending = false;
    ASSERT_EQ(rqs.start_set_cpus_allowed(1, Mask{2}, &pending), 0);
    ASSERT_TRUE(pending);
    EXPECT_EQ(rqs.requests(0).size(), 1u);
    EXPECT_EQ(rqs.find(1)->cpu, 0);
    EXPECT_TRUE(rqs.run_migration_thread(0));
    EXPECT_EQ(rqs.find(1)->cpu, 2);
    EXPECT_EQ(rqs.check(), "");
    EXPECT_FALSE(rqs.run_migration_thread(0));
  }
}

TEST(RunQueues, WaitingTaskNeedsTheMigrationThreadOnlyIn2623) {
  for (SchedForm form : kForms) {
    RunQueues rqs(Mask{0, 1}, form);
    rqs.add(1, Mask{0});
    rqs.add(2, Mask{0});
    ASSERT_EQ(rqs.find(2)->state, RunState::kQueued);
    bool pending = false;
    ASSERT_EQ(rqs.start_set_cpus_allowed(2, Mask{1}, &pending), 0);
    EXPECT_EQ(pending, form == SchedForm::k2_6_23);
    EXPECT_EQ(rqs.find(2)->cpu, form == SchedForm::k2_6_23 ? 0 : 1);
  }
}

// __migrate_task looks again at everything that may have changed since the request was made.
TEST(RunQueues, RequestIsDroppedWhenTheWorldHasChanged) {
  RunQueues rqs(Mask{0, 1, 2, 3}, SchedForm::k2_6_23);
  rqs.add(1, Mask{0});
  bool pending = false;
  rqs.start_set_cpus_allowed(1, Mask{1}, &pending);
  rqs.start_set_cpus_allowed(1, Mask{2}, &pending);
  EXPECT_TRUE(rqs.run_migration_thread(0));
  EXPECT_EQ(rqs.find(1)->cpu, 0) << "CPU 1 is no longer allowed";
  EXPECT_TRUE(rqs.run_migration_thread(0));
  EXPECT_EQ(rqs.find(1)->cpu, 2);

  rqs.start_set_cpus_allowed(1, Mask{3}, &pending);
  rqs.offline(3);
  EXPECT_TRUE(rqs.run_migration_thread(2));
  EXPECT_EQ(rqs.find(1)->cpu, 2) << "the destination is offline";

  rqs.start_set_cpus_allowed(1, Mask{0}, &pending);
  rqs.remove(1);
  EXPECT_TRUE(rqs.run_migration_thread(2))
      << "a request for a task that died is served and forgotten";
}

// The difference that makes rebalancing necessary: eight spinners driven from CPUs 4-7 to 0-3.
TEST(RunQueues, OldFormPilesUpTodaySpreads) {
  RunQueues old_form(Mask::range(0, 7), SchedForm::k2_6_23);
  RunQueues today(Mask::range(0, 7), SchedForm::kToday);
  for (RunQueues* rqs : {&old_form, &today}) {
    for (int tid = 1; tid <= 8; ++tid) ASSERT_EQ(rqs->add(tid, Mask::range(4, 7)), 0);
    for (int tid = 1; tid <= 8; ++tid) ASSERT_EQ(rqs->set_cpus_allowed(tid, Mask::range(0, 3)), 0);
    EXPECT_EQ(rqs->check(), "");
  }
  EXPECT_EQ(old_form.nr_running(0), 8);
  EXPECT_EQ(old_form.imbalance(), 8);
  for (int cpu = 0; cpu < 4; ++cpu) EXPECT_EQ(today.nr_running(cpu), 2);
  EXPECT_EQ(old_form.idle_while_waiting(), 3);
  EXPECT_GT(old_form.balance(), 0);
  EXPECT_EQ(old_form.idle_while_waiting(), 0);
  for (int cpu = 0; cpu < 4; ++cpu) EXPECT_EQ(old_form.nr_running(cpu), 2);
}

TEST(RunQueues, PinnedTasksAreNotBalancedAway) {
  RunQueues rqs(Mask::range(0, 3), SchedForm::kToday);
  for (int tid = 1; tid <= 4; ++tid) rqs.add(tid, Mask{0});
  for (int i = 0; i < 10; ++i) {
    EXPECT_EQ(rqs.balance(), 0);
    rqs.tick();
  }
  EXPECT_EQ(rqs.imbalance(), 4);
  EXPECT_EQ(rqs.idle_while_waiting(), 0) << "nothing that waits may run elsewhere";
}

TEST(RunQueues, NewTaskGoesToTheIdlestAllowedCpu) {
  RunQueues rqs(Mask::range(0, 3), SchedForm::kToday);
  rqs.add(1, Mask{1});
  rqs.add(2, Mask{1, 2});
  EXPECT_EQ(rqs.find(2)->cpu, 2);
  rqs.add(3, Mask{1});
  EXPECT_EQ(rqs.find(3)->cpu, 1);
}

TEST(RunQueues, WokenTaskStaysInItsCache) {
  RunQueues rqs(Mask::range(0, 7), SchedForm::kToday, {Mask::range(0, 3), Mask::range(4, 7)});
  rqs.add(1, Mask::range(0, 7), 1.0, 1);
  int home = rqs.find(1)->cpu;
  rqs.sleep(1);
  for (int tid = 10; tid < 14; ++tid) rqs.add(tid, Mask{tid - 10});
  rqs.wake(1);
  EXPECT_EQ(rqs.find(1)->cpu, home) << "CPUs 4-7 idle, but they share no cache with it";
}

TEST(RunQueues, OfflinePushesAndBreaksAPin) {
  RunQueues rqs(Mask{0, 1}, SchedForm::kToday);
  rqs.add(1, Mask{1});
  rqs.add(2, Mask{0, 1});
  rqs.offline(1);
  EXPECT_EQ(rqs.nr_running(0), 2);
  EXPECT_EQ(rqs.find(1)->allowed, Mask{0});
  EXPECT_EQ(rqs.check(), "");
}

TEST(RunQueues, WeightsDecideWhoRuns) {
  RunQueues rqs(Mask{0}, SchedForm::kToday);
  rqs.add(1, Mask{0}, 3.0);
  rqs.add(2, Mask{0}, 1.0);
  for (int i = 0; i < 400; ++i) rqs.tick();
  EXPECT_NEAR(static_cast<double>(rqs.find(1)->ran), 300, 2);
}

// Whatever happens in whatever order: no task is lost, doubled or on a forbidden CPU, and after
// enough balancing no CPU idles while a task that may run there waits.
TEST(RunQueues, RandomEventsKeepTheRules) {
  for (SchedForm form : kForms) {
    std::mt19937 random(11);
    RunQueues rqs(Mask::range(0, 7), form, {Mask::range(0, 3), Mask::range(4, 7)});
    int next = 1;
    for (int step = 0; step < 20000; ++step) {
      Mask mask;
      for (int cpu = 0; cpu < 8; ++cpu) {
        if (random() % 3 == 0) mask.set(cpu);
      }
      std::vector<int> tids = rqs.tasks();
      int tid = tids.empty() ? 0 : tids[random() % tids.size()];
      bool pending = false;
      switch (random() % 10) {
        case 0:
          if (tids.size() < 20) rqs.add(next++, mask);
          break;
        case 1:
          if (tids.size() > 5) rqs.remove(tid);
          break;
        case 2:
          rqs.sleep(tid);
          break;
        case 3:
          rqs.wake(tid);
          break;
        case 4:
          rqs.set_cpus_allowed(tid, mask);
          break;
        case 5:
          rqs.start_set_cpus_allowed(tid, mask, &pending);
          break;
        case 6:
          // A mask change holds the hotplug lock until its request is served.
          for (int cpu = 0; cpu < 8; ++cpu) {
            while (rqs.run_migration_thread(cpu)) {
            }
          }
          rqs.offline(1 + static_cast<int>(random() % 7));
          break;
        case 7:
          rqs.online(static_cast<int>(random() % 8));
          break;
        case 8:
          rqs.balance();
          break;
        default:
          rqs.tick();
      }
      ASSERT_EQ(rqs.check(), "") << "step " << step;
    }
    for (int i = 0; i < 50; ++i) {
      rqs.tick();
      rqs.balance();
    }
    EXPECT_EQ(rqs.idle_while_waiting(), 0);
  }
}

}  // namespace
}  // namespace allot::model
