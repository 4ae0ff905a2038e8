// The topology reader on machines of known shape (machines.py), and its three readings
// that easily go wrong.
#include "cpus/topology.h"

#include <gtest/gtest.h>

#include "cpus/memory_policy.h"
#include "cpus/placement.h"

namespace allot::cpus {
namespace {

Topology machine(const std::string& name) {
  Expected<Topology> t = read_topology(FsRoot(std::string(ALLOT_TEST_MACHINES) + "/" + name));
  EXPECT_TRUE(t) << name;
  return t ? *t : Topology{};
}

TEST(Topology, EveryMachineReadsAsWritten) {
  struct Row {
    const char *name, *text;
  };
  for (const Row& row : std::initializer_list<Row>{
           {"desktop", "1 package, 1 domain, 8 cores, 16 CPUs (0-15), 1 node, 1 GPU"},
           {"two_sockets", "2 packages, 2 domains, 64 cores, 128 CPUs (0-127), 2 nodes, 4 GPUs"},
           {"amd_l3", "1 package, 8 domains, 64 cores, 128 CPUs (0-127), 1 node, 1 GPU"},
           {"sub_numa", "2 packages, 4 domains, 48 cores, 96 CPUs (0-95), 4 nodes, 2 GPUs"},
           {"memoryless", "1 package, 2 domains, 8 cores, 8 CPUs (0-7), 3 nodes, 1 GPU"},
           {"vm_flat", "1 package, 1 domain, 8 cores, 16 CPUs (0-15), 0 nodes, 1 GPU"},
           {"one_offline",
            "1 package, 1 domain, 4 cores, 7 CPUs (0-4,6-7), 1 node, 1 GPU, offline 5"},
           {"container",
            "2 packages, 2 domains, 16 cores, 32 CPUs (0-31), 2 nodes, 2 GPUs, allowed 2-4,18-20"},
           {"isolated", "1 package, 1 domain, 8 cores, 8 CPUs (0-7), 1 node, 0 GPUs, isolated 4-7"},
           {"epyc_256", "2 packages, 16 domains, 128 cores, 256 CPUs (0-255), 2 nodes, 8 GPUs"}}) {
    EXPECT_EQ(summary(machine(row.name)), row.text) << row.name;
  }
}

TEST(Topology, CoresHoldTheThreadsThatTheFirmwareNumberedApart) {
  Topology last = machine("desktop"), beside = machine("vm_flat");
  EXPECT_EQ(to_list(last.cores[0].threads), "0,8");
  EXPECT_EQ(to_list(beside.cores[0].threads), "0-1");
  Topology offline = machine("one_offline");
  EXPECT_EQ(to_list(offline.cores[static_cast<size_t>(offline.cpus[1].core)].threads), "1");
  EXPECT_EQ(offline.cpus[5].core, -1);
  EXPECT_FALSE(offline.cpus[5].online);
}

TEST(Topology, ACacheThatSpansNodesIsCutAtThem) {
  Topology t = machine("sub_numa");
  for (const Domain& domain : t.domains) {
    EXPECT_EQ(domain.cpus.count(), 24);
    EXPECT_EQ(domain.cpus, t.node(domain.node)->cpus);
  }
}

TEST(Topology, AGpuWithoutANodeIsNowhereAndNotEverywhere) {
  Expected<CpuSet> near = cpus_near_gpu(machine("vm_flat"), 0);
  ASSERT_FALSE(near);
  EXPECT_EQ(near.error().code, Errc::kUnsupported);
  EXPECT_NE(near.error().text.find("numa_node is -1"), std::string::npos) << near.error().text;
}

TEST(Topology, CpusNearAGpu) {
  EXPECT_EQ(to_list(*cpus_near_gpu(machine("two_sockets"), 2)), "32-63,96-127");
  EXPECT_EQ(to_list(*cpus_near_gpu(machine("sub_numa"), 0)), "12-23,60-71");
  // Node 2 is memory alone: node 0 and 1 are its neighbours, at the same distance.
  EXPECT_EQ(to_list(*cpus_near_gpu(machine("memoryless"), 0)), "0-7");
  // GPU 0 of the container is at node 1, of which it may use nothing; GPU 1 is at node 0.
  Expected<CpuSet> none = cpus_near_gpu(machine("container"), 0);
  ASSERT_FALSE(none);
  EXPECT_NE(none.error().text.find("is allowed here (2-4,18-20)"), std::string::npos)
      << none.error().text;
  EXPECT_EQ(to_list(*cpus_near_gpu(machine("container"), 1)), "2-4,18-20");
  EXPECT_EQ(cpus_near_gpu(machine("isolated"), 0).error().code, Errc::kNotFound);
}

TEST(Topology, MemoryOfANodeWithoutMemoryIsItsNeighbours) {
  Topology t = machine("memoryless");
  EXPECT_EQ(to_list(nodes_for(t, CpuSet{0, 1})), "0");
  EXPECT_EQ(to_list(nodes_for(t, CpuSet{4})), "0");  // node 1 has none
  EXPECT_EQ(to_list(nodes_for(machine("vm_flat"), CpuSet{0})), "");
  EXPECT_EQ(to_list(nodes_for(machine("two_sockets"), CpuSet{0, 40})), "0-1");
}

TEST(Topology, ThisMachineCanBeRead) {
  Expected<Topology> t = read_topology(FsRoot());
  ASSERT_TRUE(t);
  EXPECT_TRUE(t->online.contains(t->allowed));
  CpuSet of_cores;
  for (const Core& core : t->cores) {
    EXPECT_FALSE(core.threads.overlaps(of_cores)) << "a thread in two cores";
    of_cores |= core.threads;
  }
  EXPECT_EQ(of_cores, t->online);
  Expected<CpuSet> allowed = cpus_within_cpuset();
  ASSERT_TRUE(allowed);
  EXPECT_TRUE(allowed->contains(t->allowed));
}

TEST(Topology, AFolderThatIsNoMachineSaysSo) {
  Expected<Topology> t = read_topology(FsRoot("/nonexistent"));
  ASSERT_FALSE(t);
  EXPECT_EQ(t.error().code, Errc::kNotFound);
}

// What a request gets on these machines, without touching anything.
std::string chosen(const std::string& name, const PlacementRequest& request,
                   const std::vector<Lease>& leases = {}) {
  Topology t = machine(name);
  Expected<Placement> p = choose(t, t.allowed, leases, request);
  return p ? to_list(p->cpus) : "!" + p.error().text;
}

PlacementRequest ask(const std::string& cpus, int gpu = -1, bool exclusive = false) {
  return {.cpus = cpus, .exclusive = exclusive, .gpu = gpu};
}

TEST(Choose, WholeCoresOfOneDomainNearTheGpu) {
  EXPECT_EQ(chosen("desktop", ask("4")), "1-2,9-10");  // core 0 is kept for the system
  EXPECT_EQ(chosen("desktop", ask("3")), "1-2,9-10");  // rounded up to whole cores
  EXPECT_EQ(chosen("two_sockets", ask("4", 2)), "32-33,96-97");
  EXPECT_EQ(chosen("sub_numa", ask("4", 1)), "36-37,84-85");
  EXPECT_EQ(chosen("amd_l3", ask("16")),
            "8-15,72-79");  // all of one L3, not the remains of CPU 0's
  EXPECT_EQ(chosen("isolated", ask("3")), "1-3");
  EXPECT_EQ(chosen("container", ask("4", 1)), "3-4,19-20");
}

TEST(Choose, BadInputIsOneLineThatNamesIt) {
  EXPECT_EQ(chosen("desktop", ask("0-999")),
            "!--cpus 0-999: there is no CPU 16-999; this machine has 0-15");
  EXPECT_EQ(chosen("desktop", ask("0-99999")), "!--cpus 0-99999: this machine has CPUs 0-15");
  EXPECT_EQ(chosen("desktop", ask(",")), "!--cpus ,: the list is empty");
  EXPECT_EQ(chosen("desktop", ask("")), "!--cpus : the list is empty");
  EXPECT_EQ(chosen("desktop", ask("x")), "!--cpus x: not a number, a list such as 0-3,8, or gpu");
  EXPECT_EQ(chosen("desktop", ask("0")), "!--cpus 0: the number of CPUs must be 1 or more");
  EXPECT_EQ(chosen("one_offline", ask("4-5")), "!--cpus 4-5: CPU 5 is offline");
  EXPECT_EQ(chosen("container", ask("0,2")),
            "!--cpus 0,2: CPU 0 is not allowed here, only 2-4,18-20");
  EXPECT_EQ(chosen("desktop", ask("17")),
            "!--cpus 17: no room for 17 CPUs: 16 CPUs on 8 cores are free");
  EXPECT_EQ(chosen("desktop", ask("2", 7)), "!there is no GPU 7: 1 are on the PCI bus");
}

// Whatever the user wrote, the error repeats that, and nothing else.
TEST(Choose, AnErrorNamesTheOptionAndTheValueAsTheyWereWritten) {
  PlacementRequest list{.cpus = "9-99", .is_list = true, .option = "--cpu-list "};
  EXPECT_EQ(chosen("desktop", list),
            "!--cpu-list 9-99: there is no CPU 16-99; this machine has 0-15");
  for (const char* text : {"gpu", "x", "0x"}) {
    list.cpus = text;
    EXPECT_EQ(chosen("desktop", list),
              std::string("!--cpu-list ") + text + ": not a list such as 0-3,8");
  }
  list.cpus = "3";
  EXPECT_EQ(chosen("desktop", list), "3");
  for (const char* digits : {"99999999999", "2147483648", "1073741824", "999999999999999999999999"})
    EXPECT_EQ(chosen("desktop", ask(digits)),
              std::string("!--cpus ") + digits + ": no room for so many: this machine has 16 CPUs");
  EXPECT_EQ(chosen("desktop", ask("2000")),
            "!--cpus 2000: no room for 2000 CPUs: 16 CPUs on 8 cores are free");
  EXPECT_EQ(chosen("desktop", {.cpus = "99,", .option = "--slice alice="}),
            "!--slice alice=99,: there is no CPU 99; this machine has 0-15");
}

TEST(Choose, LeasedCpusAreLeftAlone) {
  Lease alice;
  alice.name = "alice";
  alice.cpus = {1, 9, 2};  // half of core 2 as well
  alice.exclusive = true;
  EXPECT_EQ(chosen("desktop", ask("4"), {alice}), "3-4,11-12");
  EXPECT_EQ(chosen("desktop", ask("1-3"), {alice}), "!--cpus 1-3: CPU 1-2 is leased to alice");
  EXPECT_EQ(chosen("desktop", ask("14", -1, true), {alice}).substr(0, 20), "!--cpus 14: no room ");
  alice.exclusive = false;  // a shared slice may be shared when nothing else is left
  EXPECT_EQ(chosen("desktop", ask("16"), {alice}), "0-15");
  EXPECT_EQ(chosen("desktop", ask("1-3", -1, true), {alice}),
            "!--cpus 1-3: CPU 1-2 is leased to alice");
}

}  // namespace
}  // namespace allot::cpus
