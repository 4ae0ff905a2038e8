// Which GPU a text means, and which limits a slice gets, on made-up machines.
#include "cli/gpus/gpu_inventory.h"

#include <gtest/gtest.h>

#include "cli/failure.h"

namespace allot::cli {
namespace {

constexpr uint64_t kGiB = uint64_t{1} << 30;

Inventory machine(std::vector<std::string> uuids) {
  Inventory inventory;
  for (const std::string& text : uuids) {
    Gpu gpu;
    gpu.index = static_cast<uint32_t>(inventory.gpus.size());
    gpu.uuid_text = text;
    uuid_from_text(text, &gpu.uuid);
    gpu.total_bytes = 80 * kGiB;
    inventory.gpus.push_back(gpu);
  }
  return inventory;
}

const Inventory kTwo = machine(
    {"GPU-1a2b0000-0000-0000-0000-000000000001", "GPU-1acc0000-0000-0000-0000-000000000002"});

template <class Work>
std::string complaint(Work work, int exit_status) {
  try {
    work();
  } catch (const Failure& failure) {
    EXPECT_EQ(failure.exit_status(), exit_status) << failure.line();
    return failure.line();
  }
  ADD_FAILURE() << "nothing was thrown";
  return "";
}

TEST(Uuid, TextAndBytesAreTheSame) {
  Uuid uuid{};
  ASSERT_TRUE(uuid_from_text("GPU-12345678-9abc-def0-1234-56789abcdef0", &uuid));
  EXPECT_EQ(uuid[0], 0x12);
  EXPECT_EQ(uuid[15], 0xf0);
  EXPECT_EQ(uuid_to_text(uuid), "GPU-12345678-9abc-def0-1234-56789abcdef0");
  EXPECT_FALSE(uuid_from_text("GPU-1234", &uuid));
  EXPECT_FALSE(uuid_from_text("GPU-12345678-9abc-def0-1234-56789abcdef01", &uuid));
  EXPECT_FALSE(uuid_from_text("GPU-zzzzzzzz-9abc-def0-1234-56789abcdef0", &uuid));
}

TEST(FindGpu, ByIndexUuidAndBeginning) {
  EXPECT_EQ(find_gpu(kTwo, "--gpu", "1").index, 1u);
  EXPECT_EQ(find_gpu(kTwo, "--gpu", "GPU-1a2b").index, 0u);
  EXPECT_EQ(find_gpu(kTwo, "--gpu", "1acc").index, 1u);
  EXPECT_EQ(find_gpu(kTwo, "--gpu", "gpu-1ACC0000-0000-0000-0000-000000000002").index, 1u);
}

TEST(FindGpu, LettersBeforeTheDigitsAreNoUuid) {
  const Inventory one = machine({kTwo.gpus[0].uuid_text});
  for (const char* text : {"G", "GPU", "gpu-", "GP", "-", "----", "x", "MIG-", "GPU-1a2x"}) {
    const std::string line = complaint([&] { find_gpu(one, "--gpu", text); }, kExitRefused);
    EXPECT_NE(line.find("first digits"), std::string::npos) << line;
  }
  EXPECT_EQ(find_gpu(one, "--gpu", "gpu-1A2B").index, 0u);
}

TEST(FindGpu, SaysWhatThereIsWhenNothingMatches) {
  const std::string line = complaint([] { find_gpu(kTwo, "--gpu", "7"); }, kExitRefused);
  EXPECT_NE(line.find("'7'"), std::string::npos) << line;
  EXPECT_NE(line.find("0 (GPU-1a2b0000-0000-0000)"), std::string::npos) << line;
  EXPECT_NE(complaint([] { find_gpu(kTwo, "--gpu", "1a"); }, kExitRefused).find("several"),
            std::string::npos);
}

TEST(FindGpu, AMigInstanceIsMeantByUuidOnly) {
  Inventory inventory = machine(
      {"GPU-1a2b0000-0000-0000-0000-000000000001", "MIG-77770000-0000-0000-0000-000000000001"});
  inventory.gpus[1].index = 0;
  EXPECT_EQ(&find_gpu(inventory, "--gpu", "0"), &inventory.gpus[0]);
  EXPECT_EQ(&find_gpu(inventory, "--gpu", "MIG-7777"), &inventory.gpus[1]);
}

TEST(ChooseGpus, AllWithoutLimitByDefault) {
  const auto chosen = choose_gpus(kTwo, {});
  ASSERT_EQ(chosen.size(), 2u);
  EXPECT_EQ(chosen[0].limit_bytes, ALLOT_UNLIMITED);
}

TEST(ChooseGpus, AChosenOrderIsKeptAndASingleLimitWins) {
  SliceSpec spec;
  spec.gpus = {"1", "0"};
  spec.memory = {{"0", 16 * kGiB}, {"", 8 * kGiB}};
  const auto chosen = choose_gpus(kTwo, spec);
  ASSERT_EQ(chosen.size(), 2u);
  EXPECT_EQ(chosen[0].gpu->index, 1u);
  EXPECT_EQ(chosen[0].limit_bytes, 8 * kGiB);
  EXPECT_EQ(chosen[1].limit_bytes, 16 * kGiB);
}

TEST(ChooseGpus, AWholeCardFitsAndOneByteMoreDoesNot) {
  SliceSpec spec;
  spec.memory = {{"", 80 * kGiB}};
  EXPECT_EQ(choose_gpus(kTwo, spec).size(), 2u);
  spec.memory = {{"1", 80 * kGiB + 1}};
  const std::string line = complaint([&] { choose_gpus(kTwo, spec); }, kExitRefused);
  EXPECT_NE(line.find("85899345921"), std::string::npos) << line;
  EXPECT_NE(line.find("85899345920"), std::string::npos) << line;
}

TEST(ChooseGpus, ContradictionsAreUsageErrors) {
  SliceSpec twice;
  twice.gpus = {"0", "1a2b"};
  complaint([&] { choose_gpus(kTwo, twice); }, kExitUsage);
  SliceSpec left_out;
  left_out.gpus = {"0"};
  left_out.memory = {{"1", kGiB}};
  complaint([&] { choose_gpus(kTwo, left_out); }, kExitUsage);
  SliceSpec two_limits;
  two_limits.memory = {{"1", kGiB}, {"1acc", 2 * kGiB}};
  complaint([&] { choose_gpus(kTwo, two_limits); }, kExitUsage);
  SliceSpec common_twice;
  common_twice.memory = {{"", kGiB}, {"", 2 * kGiB}};
  complaint([&] { choose_gpus(kTwo, common_twice); }, kExitUsage);
}

TEST(ChooseGpus, MoreThanASliceHoldsIsRefused) {
  Inventory many;
  for (unsigned i = 0; i <= ALLOT_MAX_GPUS; ++i) {
    Gpu gpu;
    gpu.index = i;
    gpu.uuid_text = "GPU-" + std::to_string(i);
    many.gpus.push_back(gpu);
  }
  complaint([&] { choose_gpus(many, {}); }, kExitRefused);
}

TEST(AskDriver, ALibraryThatIsNoneIsAProblemAndNoCrash) {
  EXPECT_NE(ask_driver({}).problem, "");
  const Inventory inventory = ask_driver({"/dev/null", "/nonexistent/libnvidia-ml.so.1", false});
  EXPECT_TRUE(inventory.gpus.empty());
  EXPECT_NE(inventory.problem.find("/nonexistent"), std::string::npos) << inventory.problem;
}

}  // namespace
}  // namespace allot::cli
