// How shares are said.
#include "cli/launch/admission.h"

#include <gtest/gtest.h>

namespace allot::cli {
namespace {

TEST(PercentText, AsItIsTyped) {
  EXPECT_EQ(percent_text(0), "none");
  EXPECT_EQ(percent_text(300), "30%");
  EXPECT_EQ(percent_text(5), "0.5%");
  EXPECT_EQ(percent_text(1000), "100%");
}

}  // namespace
}  // namespace allot::cli
