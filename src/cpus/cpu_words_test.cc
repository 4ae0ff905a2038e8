// The laws of the lists that a user types, on machines of every shape.
#include "cpus/cpu_words.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <random>

namespace allot::cpus {
namespace {

Topology machine_of_words(const char* name) {
  return *read_topology(FsRoot(std::string(ALLOT_TEST_MACHINES) + "/" + name));
}

constexpr const char* kShapes[] = {"desktop",   "two_sockets", "amd_l3",   "sub_numa", "memoryless",
                                   "container", "one_offline", "epyc_256", "vm_flat"};

CpuSet words(const Topology& t, const std::string& text) {
  Expected<CpuSet> set = parse_cpu_words(t, t.allowed, text);
  EXPECT_TRUE(set) << text << ": " << (set ? "" : set.error().text);
  return set.value_or(CpuSet{});
}

TEST(CpuWords, AStrideIsEverySthOfTheRange) {
  Topology t = machine_of_words("epyc_256");
  for (int first = 0; first < 20; ++first) {
    for (int last = first; last < 40; ++last) {
      for (int step = 1; step < 45; ++step) {
        CpuSet want;
        for (int cpu = first; cpu <= last; cpu += step) want.add(cpu);
        ASSERT_EQ(words(t, std::to_string(first) + "-" + std::to_string(last) + ":" +
                               std::to_string(step)),
                  want);
      }
    }
  }
}

TEST(CpuWords, WhatTheKernelTakesMeansTheSame) {
  Topology t = machine_of_words("epyc_256");
  for (const char* text : {"0-3,8", "0-31:2/16", "0", "", "0,,1", "5-5", "0-6:2/3,200"})
    EXPECT_EQ(words(t, text), parse_list(text).value_or(CpuSet{})) << text;
}

TEST(CpuWords, EachNotationNamesARandomSetOfEachMachine) {
  std::mt19937 random(1);
  for (const char* shape : kShapes) {
    Topology t = machine_of_words(shape);
    std::vector<int> allowed = t.allowed.to_vector();
    for (int round = 0; round < 200; ++round) {
      CpuSet set, places;
      for (size_t i = 0; i < allowed.size(); ++i) {
        if (random() % 2 == 0) continue;
        set.add(allowed[i]);
        places.add(static_cast<int>(i));
      }
      if (set.empty()) continue;
      std::string digits;
      for (int at = kMaxCpus - 4; at >= 0; at -= 4) {
        int value = 0;
        for (int bit = 0; bit < 4; ++bit) value |= set.has(at + bit) ? 1 << bit : 0;
        if (value != 0 || !digits.empty()) digits += "0123456789abcdef"[value];
      }
      EXPECT_EQ(words(t, "0x" + digits), set) << shape;
      EXPECT_EQ(words(t, "+" + to_list(places)), set) << shape;
      EXPECT_EQ(words(t, "!" + to_list(set)), t.allowed - set) << shape;
      EXPECT_EQ(words(t, "pu:" + to_list(set)), set) << shape;
    }
  }
}

TEST(CpuWords, ObjectsOfAKindCoverTheMachineOnceInOrder) {
  for (const char* shape : kShapes) {
    Topology t = machine_of_words(shape);
    for (std::string kind : {"core", "l3", "package"}) {
      EXPECT_EQ(words(t, kind + ":all"), t.online) << shape;
      CpuSet seen;
      int count = 0, package = -1;
      for (; !t.online.empty() && seen != t.online; ++count) {
        CpuSet one = words(t, kind + ":" + std::to_string(count));
        ASSERT_FALSE(one.empty()) << shape << " " << kind << count;
        EXPECT_FALSE(one.overlaps(seen)) << shape << " " << kind << count;
        seen |= one;
        int here = t.cpus[static_cast<size_t>(one.first())].package;
        EXPECT_GE(here, package) << "counted from package to package";
        package = here;
      }
      EXPECT_FALSE(parse_cpu_words(t, t.allowed, kind + ":" + std::to_string(count))) << shape;
      if (count > 1) {
        EXPECT_EQ(words(t, kind + ":0,1"), words(t, kind + ":0") | words(t, kind + ":1"));
        EXPECT_EQ(words(t, kind + ":0-1"), words(t, kind + ":0," + kind + ":1"));
      }
    }
    for (const Node& node : t.nodes) {
      Expected<CpuSet> set = parse_cpu_words(t, t.allowed, "node:" + std::to_string(node.id));
      EXPECT_EQ(set.value_or(CpuSet{}), node.cpus & t.online) << shape;
    }
  }
}

// The words of the kernel's notation, on a machine rather than on a mask of 1,024 bits.
TEST(CpuWords, AllIsWhatIsAllowedAndNIsTheLastCpu) {
  for (const char* shape : kShapes) {
    Topology t = machine_of_words(shape);
    EXPECT_EQ(words(t, "all"), t.allowed) << shape;
    EXPECT_EQ(words(t, "ALL"), t.allowed) << shape;
    EXPECT_EQ(words(t, "+all"), t.allowed) << shape;
    EXPECT_EQ(words(t, "!all"), CpuSet{}) << shape;
    EXPECT_EQ(words(t, "N"), CpuSet{t.present.last()}) << shape;
    EXPECT_EQ(words(t, "+N"), CpuSet{t.allowed.last()}) << shape;
    EXPECT_EQ(words(t, "0-N"), CpuSet::range(0, t.present.last())) << shape;
    CpuSet even;
    for (int cpu = 0; cpu <= t.present.last(); cpu += 2) even.add(cpu);
    EXPECT_EQ(words(t, "all:1/2"), even & t.allowed) << shape;
    EXPECT_EQ(words(t, "core:all"), t.online) << shape;
    EXPECT_EQ(words(t, "core:0-N"), t.online) << shape;
  }
}

TEST(CpuWords, ARangeThatRunsBackwardsIsCalledThat) {
  Topology t = machine_of_words("desktop");
  for (const char* text : {"5-2", "0,5-2", "core:5-2", "+5-2", "!5-2"}) {
    Expected<CpuSet> set = parse_cpu_words(t, t.allowed, text);
    ASSERT_FALSE(set) << text;
    EXPECT_EQ(set.error().text, "the range 5-2 runs backwards; write 2-5") << text;
  }
}

TEST(CpuWords, AnObjectBeyondTheLastIsNamed) {
  Topology t = machine_of_words("desktop");
  for (const char* number : {"8", "99", "99999", "99999999999"}) {
    Expected<CpuSet> set = parse_cpu_words(t, t.allowed, std::string("core:") + number);
    ASSERT_FALSE(set) << number;
    EXPECT_EQ(set.error().text, std::string("there is no core ") + number + ", the last one is 7");
  }
}

TEST(CpuWords, AnythingElseIsOneErrorAndNeverACrash) {
  Topology t = machine_of_words("desktop");
  for (const char* text : {"one",      "-1",          "3-1",     "0-6:0",   "0-6:",    "0-",
                           ":",        "core:",       "core",    "cores:1", "0x",      "0xg",
                           "+core:0",  "+0x1",        "core:99", "+16",     "0-3:2:2", "!one",
                           "core:0x1", "99999999999", "0-2000",  "node:7",  "+-1"})
    EXPECT_FALSE(parse_cpu_words(t, t.allowed, text)) << text;
  std::mt19937 random(2);
  constexpr std::string_view kLetters = "0123456789-,:/+!~xcoreN l3pu";
  for (int i = 0; i < 200'000; ++i) {
    std::string text;
    for (size_t n = random() % 12; n > 0; --n) text += kLetters[random() % kLetters.size()];
    Expected<CpuSet> set = parse_cpu_words(t, t.allowed, text);
    EXPECT_TRUE(set || !set.error().text.empty());
  }
}

}  // namespace
}  // namespace allot::cpus
