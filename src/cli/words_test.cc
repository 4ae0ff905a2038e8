// Slips of the fingers, and words that are no slips.
#include "cli/words.h"

#include <gtest/gtest.h>

namespace allot::cli {
namespace {

const std::vector<std::string> kCommands = {"run",    "ps",    "gpus",  "set",
                                            "freeze", "evict", "doctor"};

TEST(Nearest, ALetterTooManyTooFewWrongOrExchanged) {
  for (const char* slip : {"doctr", "doctorr", "docter", "dcotor", "DOCTOR", "doct"}) {
    EXPECT_EQ(nearest(slip, kCommands), "doctor") << slip;
  }
  EXPECT_EQ(nearest("rnu", kCommands), "run");
  EXPECT_EQ(nearest("--gpu-mm", {"--gpu", "--gpu-mem", "--gpu-max"}), "--gpu-mem");
}

TEST(Nearest, NothingWhereNothingIsNear) {
  for (const std::string& word :
       {std::string("frobnicate"), std::string(), std::string(100000, 'x')}) {
    EXPECT_EQ(nearest(word, kCommands), "");
  }
  EXPECT_EQ(did_you_mean("frobnicate", kCommands), "");
  EXPECT_EQ(did_you_mean("evcit", kCommands), "; did you mean 'evict'?");
}

}  // namespace
}  // namespace allot::cli
