#include "ops.h"

#include <gtest/gtest.h>

#include <cerrno>

namespace allot::kernel_test {
namespace {

model::Cpusets fresh(model::Hierarchy hierarchy) {
  model::Cpusets model(model::Machine::flat(8, 2), model::Era::k6_1, hierarchy);
  model::TaskInit driver;
  driver.tid = 1;
  model.adopt_task(driver);
  return model;
}

// A failing sequence is replayed from its text, so every operation must survive it.
TEST(Ops, EveryOperationSurvivesItsLine) {
  for (model::Hierarchy hierarchy : {model::Hierarchy::kV1, model::Hierarchy::kV2}) {
    model::Cpusets model = fresh(hierarchy);
    Generator generator(3);
    for (int i = 0; i < 3000; ++i) {
      Op op = generator.next(model);
      Op again;
      ASSERT_TRUE(Op::parse(op.line(), &again)) << op.line();
      EXPECT_EQ(again.line(), op.line());
      EXPECT_EQ(again.text, op.text) << op.line();
      EXPECT_EQ(again.path, op.path);
      EXPECT_EQ(again.file, op.file);
      apply(op, &model);
    }
  }
}

TEST(Ops, EqualSeedsGiveEqualRuns) {
  std::string lines[2];
  for (std::string& text : lines) {
    model::Cpusets model = fresh(model::Hierarchy::kV2);
    Generator generator(episode_seed(1, 5));
    for (int i = 0; i < kOpsPerEpisode; ++i) {
      Op op = generator.next(model);
      text += op.line() + "\n";
      apply(op, &model);
    }
  }
  EXPECT_EQ(lines[0], lines[1]);
}

TEST(Ops, HashDependsOnErrnoAndState) {
  EXPECT_NE(state_hash(0, {"a"}), state_hash(EINVAL, {"a"}));
  EXPECT_NE(state_hash(0, {"a"}), state_hash(0, {"b"}));
  EXPECT_NE(state_hash(0, {"a", "b"}), state_hash(0, {"ab"}));
}

TEST(Ops, JunkIsNoOperation) {
  Op op;
  EXPECT_FALSE(Op::parse("", &op));
  EXPECT_FALSE(Op::parse("frob /a", &op));
  EXPECT_FALSE(Op::parse("write /a cpuset.cpus", &op));
}

}  // namespace
}  // namespace allot::kernel_test
