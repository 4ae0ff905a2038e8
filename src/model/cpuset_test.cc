// The rules one by one, as facts measured on real kernels; the random comparison with real kernels
// is tests/kernel.
#include "model/cpuset.h"

#include <gtest/gtest.h>

#include <cerrno>

namespace allot::model {
namespace {

constexpr const char* kCpus = "cpuset.cpus";
constexpr const char* kMems = "cpuset.mems";

Cpusets v1(Era era = Era::k6_1) {
  return Cpusets(Machine::flat(8, 2), era, Hierarchy::kV1);
}
Cpusets v2(Era era = Era::k6_1) {
  return Cpusets(Machine::flat(8, 2), era, Hierarchy::kV2);
}

// A v1 group with cpus and both nodes, and a task in it if tid is not 0.
void group(Cpusets* model, const char* path, const char* cpus, int tid = 0) {
  ASSERT_EQ(model->mkdir(path).err, 0);
  ASSERT_EQ(model->write(path, kCpus, cpus).err, 0);
  ASSERT_EQ(model->write(path, kMems, "0-1").err, 0);
  if (tid == 0) return;
  TaskInit task;
  task.tid = tid;
  ASSERT_TRUE(model->adopt_task(task));
  ASSERT_EQ(model->attach_process(path, tid).err, 0);
}

// A v2 group below a root that hands cpuset down.
void group2(Cpusets* model, const char* path, const char* cpus, int tid = 0) {
  model->write("/", "cgroup.subtree_control", "+cpuset");
  ASSERT_EQ(model->mkdir(path).err, 0);
  ASSERT_EQ(model->write(path, kCpus, cpus).err, 0);
  if (tid == 0) return;
  TaskInit task;
  task.tid = tid;
  ASSERT_TRUE(model->adopt_task(task));
  ASSERT_EQ(model->attach_process(path, tid).err, 0);
}

TEST(CpusetV1, NewGroupTakesNoTaskUntilBothSetsAreThere) {
  Cpusets model = v1();
  ASSERT_TRUE(model.adopt_task({.tid = 5}));
  ASSERT_TRUE(model.mkdir("/a").ok());
  Outcome attached = model.attach_process("/a", 5);
  EXPECT_EQ(attached.err, ENOSPC);
  EXPECT_EQ(attached.reason.why, Why::kEmptyTarget);
  EXPECT_EQ(sentence(attached.reason), "group /a has no cpus and mems");
  model.write("/a", kCpus, "0-3");
  EXPECT_EQ(model.attach_process("/a", 5).reason.detail, "mems");
  model.write("/a", kMems, "0");
  EXPECT_EQ(model.attach_process("/a", 5).err, 0);
  EXPECT_EQ(model.cpus_mask(5).list(), "0-3");
  EXPECT_EQ(model.mems_allowed(5).list(), "0");
}

TEST(CpusetV1, WriteNamesTheChildInTheWay) {
  Cpusets model = v1();
  group(&model, "/a", "0-3");
  group(&model, "/a/b", "2-3");
  Outcome shrunk = model.write("/a", kCpus, "0-2");
  EXPECT_EQ(shrunk.err, EBUSY);
  EXPECT_EQ(shrunk.reason.group, "/a/b");
  EXPECT_EQ(shrunk.reason.cpus.list(), "3");
  EXPECT_EQ(sentence(shrunk.reason), "child /a/b uses CPU 3");
  EXPECT_EQ(model.cpus("/a").list(), "0-3");
}

TEST(CpusetV1, WriteNamesTheParentThatLacksCpus) {
  Cpusets model = v1();
  group(&model, "/a", "0-3");
  group(&model, "/a/b", "0-1");
  Outcome grown = model.write("/a/b", kCpus, "1,4-5");
  EXPECT_EQ(grown.err, EACCES);
  EXPECT_EQ(sentence(grown.reason), "parent /a does not have CPUs 4-5");
}

TEST(CpusetV1, ChildIsCheckedBeforeParent) {
  Cpusets model = v1();
  group(&model, "/a", "0-3");
  group(&model, "/a/b", "0-1");
  group(&model, "/a/b/c", "0");
  EXPECT_EQ(model.write("/a/b", kCpus, "1,7").err, EBUSY);
}

TEST(CpusetV1, ExclusiveSiblingsMayNotOverlap) {
  Cpusets model = v1();
  group(&model, "/a", "0-3");
  group(&model, "/b", "3-4");
  Outcome set = model.write("/a", "cpuset.cpu_exclusive", "1");
  EXPECT_EQ(set.err, EINVAL);
  EXPECT_EQ(set.reason.why, Why::kSiblingOverlap);
  EXPECT_EQ(set.reason.group, "/b");
  EXPECT_EQ(set.reason.cpus.list(), "3");
  ASSERT_TRUE(model.write("/b", kCpus, "4").ok());
  ASSERT_TRUE(model.write("/a", "cpuset.cpu_exclusive", "1").ok());
  EXPECT_EQ(model.write("/b", kCpus, "3-4").err, EINVAL);
}

TEST(CpusetV1, ExclusiveFollowsTheTree) {
  Cpusets model = v1();
  group(&model, "/a", "0-3");
  group(&model, "/a/b", "0-1");
  EXPECT_EQ(model.write("/a/b", "cpuset.cpu_exclusive", "1").reason.why, Why::kParentNotExclusive);
  ASSERT_TRUE(model.write("/a", "cpuset.cpu_exclusive", "1").ok());
  ASSERT_TRUE(model.write("/a/b", "cpuset.cpu_exclusive", "2").ok());
  EXPECT_EQ(model.read("/a/b", "cpuset.cpu_exclusive"), "1\n");
  Outcome off = model.write("/a", "cpuset.cpu_exclusive", "0");
  EXPECT_EQ(off.err, EBUSY);
  EXPECT_EQ(off.reason.why, Why::kChildExclusive);
}

TEST(CpusetV1, SmallErrnos) {
  Cpusets model = v1();
  group(&model, "/a", "0-3", 5);
  EXPECT_EQ(model.write("/", kCpus, "0").err, EACCES);
  EXPECT_EQ(model.write("/a", kCpus, "\n").err, ENOSPC);
  EXPECT_EQ(model.write("/a", kCpus, "").err, 0) << "a write of nothing is no write";
  EXPECT_EQ(model.write("/a", kCpus, "8").err, ERANGE);
  EXPECT_EQ(model.write("/a", kCpus, "foo").err, EINVAL);
  EXPECT_EQ(model.write("/a", kCpus, std::string(60000, '0')).err, E2BIG);
  EXPECT_EQ(model.write("/a", "cpuset.cpu_exclusive", "x").err, EINVAL);
  EXPECT_EQ(model.write("/a", "cpuset.sched_relax_domain_level", "-2").err, EINVAL);
  EXPECT_EQ(model.write("/a", "cpuset.sched_relax_domain_level", "3").err, 0);
  EXPECT_EQ(model.write("/a", "tasks", "99").err, ESRCH);
  EXPECT_EQ(model.write("/a", "tasks", "-1").err, EINVAL);
  EXPECT_EQ(model.write("/a", "tasks", "5", {.tid = 1, .euid = 1000, .cap_sys_nice = false}).err,
            EACCES);
  EXPECT_EQ(model.rmdir("/a").err, EBUSY);
  EXPECT_EQ(model.rmdir("/b").err, ENOENT);
  EXPECT_EQ(model.mkdir("/a").err, EEXIST);
  ASSERT_TRUE(model.adopt_task({.tid = 9, .no_setaffinity = true}));
  EXPECT_EQ(model.attach_process("/a", 9).err, EINVAL);
}

// Only this group's tasks are updated, not those of its children.
TEST(CpusetV1, WriteReachesOnlyItsOwnTasks) {
  Cpusets model = v1();
  group(&model, "/a", "0-5", 5);
  group(&model, "/a/b", "0-1", 6);
  ASSERT_TRUE(model.write("/a", kCpus, "0-3").ok());
  EXPECT_EQ(model.cpus_mask(5).list(), "0-3");
  EXPECT_EQ(model.cpus_mask(6).list(), "0-1");
}

TEST(CpusetV1, HotplugTakesCpusForGoodAndMovesTasksOut) {
  Cpusets model = v1();
  group(&model, "/a", "0-3", 5);
  group(&model, "/b", "3", 6);
  Outcome off = model.offline(3);
  EXPECT_EQ(off.reason.why, Why::kTransferred);
  EXPECT_EQ(model.group_of(6), "/");
  EXPECT_EQ(model.cpus_mask(6).list(), "0-7");
  EXPECT_EQ(model.cpus_mask(5).list(), "0-2");
  model.online(3);
  EXPECT_EQ(model.cpus("/a").list(), "0-2");
  EXPECT_EQ(model.cpus("/b").list(), "");
  EXPECT_EQ(model.attach_process("/b", 6).err, ENOSPC);
  model.offline(5);
  EXPECT_EQ(model.write("/a", kCpus, "0-2,5").reason.why, Why::kNotInTop);
}

TEST(CpusetV1, SleepingRootTaskKeepsAnOfflineMaskUntilItWakes) {
  Cpusets model = v1();
  ASSERT_TRUE(model.adopt_task({.tid = 5, .cpus = Mask{3}}));
  model.offline(3);
  Mask legal;
  model.get_affinity(5, &legal);
  EXPECT_TRUE(legal.empty());
  EXPECT_EQ(model.cpus_mask(5).list(), "3");
  model.wake(5);
  EXPECT_EQ(model.cpus_mask(5).list(), "0-7");
}

TEST(CpusetV1, LoadBalanceMakesDomains) {
  Cpusets model = v1();
  EXPECT_EQ(model.sched_domains().size(), 1u);
  model.write("/", "cpuset.sched_load_balance", "0");
  group(&model, "/a", "0-1");
  group(&model, "/b", "1-2");
  group(&model, "/c", "4-5");
  std::vector<Mask> domains = model.sched_domains();
  ASSERT_EQ(domains.size(), 2u);
  EXPECT_EQ(domains[0].list(), "0-2");
  EXPECT_EQ(domains[1].list(), "4-5");
}

TEST(CpusetV1, HistoricalFormDropsOfflineCpus) {
  Cpusets model = v1(Era::k2_6_25);
  model.offline(7);
  ASSERT_TRUE(model.mkdir("/a").ok());
  EXPECT_EQ(model.write("/a", kCpus, "6-7").err, 0);
  EXPECT_EQ(model.cpus("/a").list(), "6");
}

TEST(CpusetV2, EmptyResultFallsBackToTheParent) {
  Cpusets model = v2();
  group2(&model, "/a", "0-3");
  model.write("/a", "cgroup.subtree_control", "+cpuset");
  ASSERT_TRUE(model.mkdir("/a/b").ok());
  Outcome written = model.write("/a/b", kCpus, "5");
  EXPECT_EQ(written.err, 0);
  EXPECT_EQ(written.reason.why, Why::kInherited);
  EXPECT_EQ(model.read("/a/b", "cpuset.cpus"), "5\n");
  EXPECT_EQ(model.read("/a/b", "cpuset.cpus.effective"), "0-3\n");
  written = model.write("/a/b", kCpus, "3-5");
  EXPECT_EQ(written.reason.why, Why::kClipped);
  EXPECT_EQ(written.reason.cpus.list(), "4-5");
}

TEST(CpusetV2, HotplugComesAndGoes) {
  Cpusets model = v2();
  group2(&model, "/a", "2-3", 5);
  model.offline(3);
  EXPECT_EQ(model.read("/a", kCpus), "2-3\n");
  EXPECT_EQ(model.effective_cpus("/a").list(), "2");
  EXPECT_EQ(model.cpus_mask(5).list(), "2");
  model.offline(2);
  EXPECT_EQ(model.effective_cpus("/a").list(), "0-1,4-7");
  EXPECT_EQ(model.group_of(5), "/a");
  model.online(2);
  model.online(3);
  EXPECT_EQ(model.cpus_mask(5).list(), "2-3");
}

TEST(CpusetV2, PopulatedGroupCannotBeCleared) {
  Cpusets model = v2();
  group2(&model, "/a", "0-3", 5);
  EXPECT_EQ(model.write("/a", kCpus, "\n").err, ENOSPC);
}

TEST(CpusetV2, ControllersAndThreads) {
  Cpusets model = v2();
  ASSERT_TRUE(model.mkdir("/a").ok());
  EXPECT_EQ(model.write("/a", kCpus, "0").err, ENOENT) << "no controller, no file";
  EXPECT_EQ(model.write("/a", "cgroup.subtree_control", "+cpuset").err, ENOENT);
  EXPECT_EQ(model.write("/", "cgroup.subtree_control", "cpuset").err, EINVAL);
  ASSERT_TRUE(model.write("/", "cgroup.subtree_control", "+cpuset +misc").ok());
  ASSERT_TRUE(model.adopt_task({.tid = 5}));
  ASSERT_TRUE(model.adopt_task({.tid = 6, .tgid = 5}));
  ASSERT_TRUE(model.attach_process("/a", 5).ok());
  EXPECT_EQ(model.tasks("/a"), (std::vector<int>{5, 6}));
  EXPECT_EQ(model.write("/a", "cgroup.subtree_control", "+misc").err, EBUSY)
      << "domain controller over tasks";
  ASSERT_TRUE(model.write("/a", "cgroup.subtree_control", "+cpuset").ok()) << "cpuset is threaded";
  EXPECT_EQ(model.read("/a", "cgroup.type"), "domain threaded\n");
  ASSERT_TRUE(model.mkdir("/a/t").ok());
  EXPECT_EQ(model.read("/a/t", "cgroup.type"), "domain invalid\n");
  EXPECT_EQ(model.attach_process("/a/t", 5).err, EOPNOTSUPP);
  ASSERT_TRUE(model.write("/a/t", "cgroup.type", "threaded").ok());
  EXPECT_TRUE(model.attach_thread("/a/t", 6).ok());
  ASSERT_TRUE(model.mkdir("/b").ok());
  EXPECT_EQ(model.attach_thread("/b", 6).err, EOPNOTSUPP) << "another domain";
  EXPECT_EQ(model.write("/", "cgroup.subtree_control", "-cpuset").err, EBUSY);
}

// The version cliff at 6.2, row by row.
TEST(CpusetUserMask, WideningAndNarrowing) {
  for (Era era : {Era::k6_1, Era::k6_12}) {
    bool remembers = era == Era::k6_12;
    Cpusets model = v2(era);
    group2(&model, "/a", "0-3", 5);
    Outcome set = model.set_affinity(5, Mask{2, 6});
    EXPECT_EQ(set.err, 0);
    EXPECT_EQ(set.reason.why, Why::kClipped);
    EXPECT_EQ(model.cpus_mask(5).list(), "2");
    model.write("/a", kCpus, "0-7");
    EXPECT_EQ(model.cpus_mask(5).list(), remembers ? "2,6" : "0-7");
    model.write("/a", kCpus, "0-3");
    EXPECT_EQ(model.cpus_mask(5).list(), remembers ? "2" : "0-3");
    EXPECT_EQ(model.set_affinity(5, Mask{6}).err, EINVAL);
    EXPECT_EQ(model.set_affinity(5, Mask()).reason.why, Why::kNoCpuLeft);
  }
}

TEST(CpusetUserMask, MoveWithoutOverlapAndBack) {
  for (Era era : {Era::k6_1, Era::k6_12}) {
    Cpusets model = v2(era);
    group2(&model, "/a", "4-7");
    ASSERT_TRUE(model.adopt_task({.tid = 5}));
    ASSERT_TRUE(model.set_affinity(5, Mask{1}).ok());
    ASSERT_TRUE(model.attach_process("/a", 5).ok());
    EXPECT_EQ(model.cpus_mask(5).list(), "4-7");
    model.write("/a", kCpus, "0-7");
    EXPECT_EQ(model.cpus_mask(5).list(), era == Era::k6_12 ? "1" : "0-7");
    ASSERT_TRUE(model.fork(5, 7, false).ok());
    EXPECT_EQ(model.cpus_mask(7), model.cpus_mask(5));
  }
}

TEST(CpusetUserMask, EnablingTheControllerWipesPinsBefore62) {
  for (Era era : {Era::k6_1, Era::k6_12}) {
    Cpusets model = v2(era);
    ASSERT_TRUE(model.mkdir("/a").ok());
    ASSERT_TRUE(model.adopt_task({.tid = 5, .group = "/a"}));
    ASSERT_TRUE(model.set_affinity(5, Mask{4}).ok());
    ASSERT_TRUE(model.write("/", "cgroup.subtree_control", "+cpuset").ok());
    EXPECT_EQ(model.cpus_mask(5).list(), era == Era::k6_12 ? "4" : "0-7");
  }
}

TEST(Cpusets, CopiesAreIndependent) {
  Cpusets model = v1();
  group(&model, "/a", "0-3", 5);
  Cpusets copy = model;
  copy.write("/a", kCpus, "0");
  EXPECT_EQ(model.cpus_mask(5).list(), "0-3");
  EXPECT_EQ(copy.cpus_mask(5).list(), "0");
  EXPECT_NE(model.observe(), copy.observe());
}

TEST(Cpusets, AdoptsAMachine) {
  Cpusets model = v2();
  ASSERT_TRUE(model.adopt_group({.path = "/system", .cpus = Mask::range(0, 5)}));
  ASSERT_TRUE(model.adopt_group({.path = "/system/x", .cpus = Mask{7}}));
  ASSERT_FALSE(model.adopt_group({.path = "/none/x"}));
  Outcome part = model.write("/system/x", "cpuset.cpus.partition", "root");
  EXPECT_EQ(part.reason.why, Why::kPartition);
  EXPECT_EQ(sentence(part.reason), "the partition is not valid: Parent is not a partition root");
  EXPECT_EQ(model.effective_cpus("/system/x").list(), "0-5");
  ASSERT_TRUE(model.adopt_task({.tid = 5, .group = "/system/x"}));
  EXPECT_EQ(model.cpus_mask(5).list(), "0-5");
}

// What a partition took is known again from its files, and comes back when it ends.
TEST(Cpusets, AdoptsAPartition) {
  for (Era era : {Era::k6_1, Era::k6_12}) {
    Cpusets made(Machine::flat(8), era, Hierarchy::kV2);
    ASSERT_TRUE(made.write("/", "cgroup.subtree_control", "+cpuset").ok());
    ASSERT_TRUE(made.mkdir("/p").ok());
    ASSERT_TRUE(made.write("/p", kCpus, "2-3").ok());
    ASSERT_TRUE(made.write("/p", "cpuset.cpus.partition", "root").ok());
    ASSERT_EQ(made.effective_cpus("/").list(), "0-1,4-7");
    Cpusets adopted(Machine::flat(8), era, Hierarchy::kV2);
    ASSERT_TRUE(adopted.adopt_group({.path = "/", .effective_cpus = made.effective_cpus("/")}));
    ASSERT_TRUE(adopted.adopt_group({.path = "/p",
                                     .cpus = Mask{2, 3},
                                     .partition = "root",
                                     .effective_cpus = made.effective_cpus("/p")}));
    for (Cpusets* each : {&made, &adopted}) {
      EXPECT_EQ(each->write("/p", "cpuset.cpus", "3").err, 0);
      EXPECT_EQ(each->effective_cpus("/").list(), "0-2,4-7");
      EXPECT_EQ(each->write("/p", "cpuset.cpus.partition", "member").err, 0);
      EXPECT_EQ(each->effective_cpus("/").list(), "0-7");
    }
  }
}

TEST(Cpusets, EveryReasonHasAName) {
  for (int why = 0; why <= static_cast<int>(Why::kPartition); ++why) {
    EXPECT_NE(why_name(static_cast<Why>(why)), "?");
    Reason reason;
    reason.why = static_cast<Why>(why);
    EXPECT_NE(sentence(reason), "?");
  }
}

}  // namespace
}  // namespace allot::model
