// explain and plan: sentences that name the culprit, on made-up trees for every owner and rule, and
// predictions that the running kernel confirms where its tree is writable.
#include "cpus/explain.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <random>

#include "cpus/plan_report.h"

namespace allot::cpus {
namespace {

// A machine of the generator with a cpuset tree put into it.
class FakeTree {
 public:
  FakeTree(const std::string& machine, bool v1, const std::string& release) : v1_(v1) {
    char name[] = "/tmp/allot-tree-XXXXXX";
    root_ = mkdtemp(name);
    std::filesystem::copy(std::string(ALLOT_TEST_MACHINES) + "/" + machine, root_,
                          std::filesystem::copy_options::recursive);
    mount_ = v1 ? "/sys/fs/cgroup/cpuset" : "/sys/fs/cgroup";
    put("/proc/sys/kernel/osrelease", release);
    put("/proc/self/mountinfo",
        v1 ? "34 31 0:29 / /sys/fs/cgroup/cpuset rw,relatime - cgroup cgroup rw,cpuset"
           : "34 31 0:29 / /sys/fs/cgroup rw,relatime - cgroup2 cgroup2 rw");
    put("/proc/self/cgroup", v1 ? "3:cpuset:/" : "0::/");
    Expected<Topology> t = read_topology(FsRoot(root_));
    topology_ = *t;
    CpuSet mems;
    for (const Node& node : t->nodes) mems.add(node.id);
    group("", to_list(t->online), to_list(mems));
    if (v1) set("", "cpuset.cpu_exclusive", "1");
  }
  ~FakeTree() { std::filesystem::remove_all(root_); }
  void put(const std::string& path, const std::string& text) {
    std::filesystem::create_directories(std::filesystem::path(root_ + path).parent_path());
    std::ofstream(root_ + path) << text << "\n";
  }
  void set(const std::string& group, const std::string& file, const std::string& text) {
    put(mount_ + group + "/" + file, text);
  }
  void group(const std::string& path, const std::string& cpus, const std::string& mems,
             const std::string& tasks = "") {
    set(path, "cpuset.cpus", cpus);
    set(path, "cpuset.mems", mems);
    set(path, "cgroup.procs", tasks);
    if (v1_) {
      set(path, "tasks", tasks);
      set(path, "cpuset.cpu_exclusive", "0");
    } else {
      set(path, "cgroup.threads", tasks);
      set(path, "cgroup.controllers", "cpuset cpu memory");
      set(path, "cgroup.subtree_control", "cpuset");
      set(path, "cpuset.cpus.effective", cpus);
      set(path, "cgroup.events", tasks.empty() ? "populated 0" : "populated 1");
      if (!path.empty()) set(path, "cgroup.type", "domain");
    }
  }
  TreeModel load() const {
    FsRoot fs(root_);
    Expected<TreeModel> tree = load_tree(fs, topology_, find_hierarchy(fs));
    EXPECT_TRUE(tree) << tree.error().text;
    return *tree;
  }
  std::string why(const std::string& file, const std::string& text) const {
    Expected<Explanation> e = explain_write(FsRoot(root_), load(), mount_ + file, text);
    return e ? fmt_errno(e->os_errno) + e->text : "!" + e.error().text;
  }
  FsRoot fs() const { return FsRoot(root_); }
  const Topology& topology() const { return topology_; }
  static std::string fmt_errno(int e) { return e == 0 ? "" : errno_name(e) + ": "; }

 private:
  bool v1_;
  std::string root_, mount_;
  Topology topology_;
};

// cpuset.cpus.exclusive is there from Linux 6.7 on, and has rules of its own.
TEST(Explain, ExclusiveCpusAreKnownWhereTheKernelHasThem) {
  FakeTree tree("desktop", false, "6.12.0");
  tree.group("/a", "0-3", "0");
  tree.group("/b", "4-7", "0");
  tree.set("/a", "cpuset.cpus.exclusive", "");
  tree.set("/b", "cpuset.cpus.exclusive", "5");
  std::string said = tree.why("/a/cpuset.cpus.exclusive", "2-3");
  EXPECT_EQ(said.find("ENOENT"), std::string::npos) << said;
  EXPECT_NE(said.find("works"), std::string::npos) << said;
  said = tree.why("/a/cpuset.cpus.exclusive", "5");
  EXPECT_EQ(said.substr(0, 7), "EINVAL:") << said;
  FakeTree old("desktop", false, "6.1.0");
  old.group("/a", "0-3", "0");
  said = old.why("/a/cpuset.cpus.exclusive", "2-3");
  EXPECT_EQ(said.substr(0, 7), "ENOENT:") << said;
}

TEST(Explain, V1NamesTheGroupInTheWay) {
  FakeTree tree("one_offline", true, "6.1.0-18-amd64");
  tree.group("/a", "0-3", "0");
  tree.group("/a/b", "2-3", "0", "4711");
  tree.group("/c", "4", "0");
  tree.set("/c", "cpuset.cpu_exclusive", "1");
  EXPECT_EQ(tree.why("/a/cpuset.cpus", "0-2"), "EBUSY: child /a/b uses CPU 3");
  EXPECT_EQ(tree.why("/a/b/cpuset.cpus", "2,6"), "EACCES: parent /a does not have CPU 6");
  EXPECT_EQ(tree.why("/a/cpuset.cpus", "0-4"),
            "EINVAL: sibling /c shares CPU 4 and one of the two is exclusive");
  EXPECT_EQ(
      tree.why("/a/b/cpuset.cpus", ""),
      "ENOSPC: group /a/b or a group below it has tasks, which would be left without CPUs 2-3");
  EXPECT_NE(tree.why("/a/cpuset.cpus", "0-3,5").find("; CPU 5 is offline"), std::string::npos)
      << tree.why("/a/cpuset.cpus", "0-3,5");
  EXPECT_EQ(tree.why("/a/cpuset.cpus", "99").substr(0, 7), "ERANGE:");
  EXPECT_EQ(tree.why("/cpuset.cpus", "0").substr(0, 7), "EACCES:");
  EXPECT_EQ(tree.why("/a/cpuset.cpus", "0-3,6"),
            "works: /sys/fs/cgroup/cpuset/a then has CPUs 0-3,6");
}

TEST(Explain, V2SilentFallbackIsSaid) {
  FakeTree tree("desktop", false, "6.1.0-18-amd64");
  tree.group("/a", "0-3", "0");
  tree.group("/a/b", "2-3", "0", "4711");
  std::string text = tree.why("/a/b/cpuset.cpus", "5");
  EXPECT_EQ(text.find("EINVAL"), std::string::npos) << text;
  EXPECT_EQ(text.find("works"), std::string::npos)
      << "a write without effect must not be praised: " << text;
}

TEST(Explain, OwnersAreNamed) {
  FakeTree tree("desktop", false, "6.1.0-18-amd64");
  tree.put("/run/systemd/system/marker", "");
  tree.group("/system.slice", "0-3", "0");
  tree.group("/system.slice/x.service", "0-3", "0", "4711");
  tree.group("/kubepods.slice", "0-3", "0");
  EXPECT_NE(tree.why("/system.slice/x.service/cpuset.cpus", "1").find("is owned by systemd"),
            std::string::npos);
  EXPECT_NE(tree.why("/kubepods.slice/cpuset.cpus", "1").find("owned by kubelet"),
            std::string::npos);
  // And with systemd there, nothing that it has not delegated is taken as a place for groups.
  Hierarchy h = find_hierarchy(tree.fs());
  EXPECT_EQ(h.base, "");
  EXPECT_NE(h.why_not.find("is owned by systemd"), std::string::npos) << h.why_not;
}

TEST(Explain, APathElsewhereIsRefused) {
  FakeTree tree("desktop", true, "6.1.0");
  EXPECT_EQ(tree.load().inside("/etc"), "");
  Expected<Explanation> e = explain_write(tree.fs(), tree.load(), "/etc/passwd", "0");
  ASSERT_FALSE(e);
  EXPECT_EQ(e.error().code, Errc::kNotFound);
}

TEST(Plan, WritesArePredictedForEachSlice) {
  FakeTree tree("two_sockets", true, "6.1.0");
  TreeModel model = tree.load();
  Expected<MachinePlan> plan = make_plan(tree.fs(), tree.topology(), tree.topology().allowed, {},
                                         {{.name = "a", .cpus = "8", .gpu = 0},
                                          {.name = "b", .cpus = "16", .gpu = 2},
                                          {.name = "c", .cpus = "0-1"}},
                                         &model, "");
  ASSERT_TRUE(plan) << plan.error().text;
  CpuSet all;
  for (const SlicePlan& t : plan->slices) {
    EXPECT_EQ(t.level, Level::kEnforced) << t.reason;
    EXPECT_EQ(t.effective, t.cpus);
    EXPECT_FALSE(all.overlaps(t.cpus));
    all |= t.cpus;
    EXPECT_DOUBLE_EQ(t.expected_cpus, t.cpus.count());
    for (const PlannedStep& step : t.steps)
      EXPECT_EQ(step.os_errno, 0) << step.step.path << ": " << step.why;
    EXPECT_EQ(t.steps.size(), 4u);
  }
  EXPECT_TRUE(tree.topology().node(1)->cpus.contains(plan->slices[1].cpus)) << "GPU 2 is at node 1";
}

TEST(Plan, AnExclusiveSiblingIsPredictedToRefuse) {
  FakeTree tree("desktop", true, "6.1.0");
  tree.group("/docker", "4-5", "0");
  tree.set("/docker", "cpuset.cpu_exclusive", "1");
  TreeModel model = tree.load();
  Expected<MachinePlan> plan = make_plan(tree.fs(), tree.topology(), tree.topology().allowed, {},
                                         {{.name = "a", .cpus = "4-7"}}, &model, "");
  ASSERT_TRUE(plan);
  EXPECT_EQ(plan->slices[0].level, Level::kAdvised);
  EXPECT_EQ(plan->slices[0].reason,
            "EINVAL: sibling /docker shares CPUs 4-5 and one of the two is exclusive");
}

TEST(Plan, WhatCannotBePlacedNamesTheSlice) {
  FakeTree tree("desktop", true, "6.1.0");
  Expected<MachinePlan> plan =
      make_plan(tree.fs(), tree.topology(), tree.topology().allowed, {},
                {{.name = "a", .cpus = "10"}, {.name = "b", .cpus = "8"}}, nullptr, "x");
  ASSERT_FALSE(plan);
  EXPECT_EQ(plan.error().text,
            "no room for 10 CPUs for a, 8 CPUs for b: 16 CPUs on 8 cores are free");
  plan = make_plan(tree.fs(), tree.topology(), tree.topology().allowed, {},
                   {{.name = "a", .cpus = "1"}, {.name = "a", .cpus = "1"}}, nullptr, "x");
  EXPECT_EQ(plan.error().text, "two slices are called a");
}

// Random steps on groups of our own: what explain predicts is what the kernel answers.
TEST(Explain, TheRunningKernelAnswersAsPredicted) {
  FsRoot fs;
  Hierarchy h = find_hierarchy(fs);
  if (h.base.empty()) GTEST_SKIP() << h.why_not;
  if (h.kind != CpusetKind::kV1) GTEST_SKIP() << "only version 1 refuses writes";
  Expected<Topology> t = read_topology(fs);
  ASSERT_TRUE(t);
  ProcessId self = *identify(fs, getpid());
  std::string top = h.base + "/" + group_name("explain", self);
  ASSERT_EQ(perform({Step::Op::kMkdir, top, ""}), 0);
  std::vector<std::string> groups{top, top + "/a", top + "/b", top + "/a/c"};
  pid_t sleeper = fork();
  if (sleeper == 0) {
    while (true) pause();
  }
  std::mt19937 random(3);
  auto pick = [&random](const std::vector<std::string>& from) {
    return from[random() % from.size()];
  };
  std::string last = std::to_string(t->online.last()),
              beyond = std::to_string(t->possible.last() + 1);
  int compared = 0, refused = 0;
  for (int i = 0; i < 400; ++i) {
    Step step;
    std::string group = pick(groups);
    switch (random() % 8) {
      case 0:
        step = {Step::Op::kMkdir, group, ""};
        break;
      case 1:
        step = {Step::Op::kRmdir, pick({groups[1], groups[2], groups[3]}), ""};
        break;
      case 2:
        step = {Step::Op::kWrite, group + "/" + h.prefix + "cpu_exclusive", pick({"0", "1"})};
        break;
      case 3:
        step = {Step::Op::kWrite, group + "/tasks", std::to_string(sleeper)};
        break;
      case 4:
        step = {Step::Op::kWrite, h.file(group, "mems"), pick({"0", "", "0"})};
        break;
      default:
        step = {Step::Op::kWrite, h.file(group, "cpus"),
                pick({"0", last, "0-" + last, "", beyond, "x", "0-" + last})};
    }
    if (step.op == Step::Op::kWrite && !fs.exists(step.path)) continue;
    Expected<TreeModel> tree = load_tree(fs, *t, h);
    ASSERT_TRUE(tree);
    model::Outcome said = predict(&*tree, step);
    int did = perform(step);
    EXPECT_EQ(errno_name(said.err), errno_name(did))
        << i << ": \"" << step.text << "\" to " << step.path << ": "
        << model::sentence(said.reason);
    ++compared;
    refused += did != 0 ? 1 : 0;
  }
  kill(sleeper, SIGKILL);
  waitpid(sleeper, nullptr, 0);
  for (const char* below : {"/a/c", "/a", "/b", ""}) remove_group(h, top + below, 1000);
  EXPECT_FALSE(fs.exists(top));
  EXPECT_GT(compared, 200);
  EXPECT_GT(refused, 40) << "too tame to prove anything";
  std::printf("%d steps compared, %d of them refused by the kernel\n", compared, refused);
}

}  // namespace
}  // namespace allot::cpus
