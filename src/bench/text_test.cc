// What a person reads of a result: each figure with its own unit.
#include "bench/text.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace allot::bench {
namespace {

TEST(ResultText, ASecondsWorkIsAPartOfAloneLikeTheWhole) {
  const nlohmann::ordered_json result = {{"achieved", 0.7}, {"per_second", {0.65, 0.75}}};
  EXPECT_EQ(result_text(result),
            "achieved                     70 %\n"
            "per_second                   65 75 %\n");
}

TEST(ResultText, AUnitInAKeyComesBehindTheFigure) {
  const nlohmann::ordered_json result = {
      {"wall_s", 1.5}, {"kernel_us", 200}, {"granted_bytes", 1u << 30}, {"share", nullptr}};
  EXPECT_EQ(result_text(result),
            "wall                         1.5 s\n"
            "kernel                       200 us\n"
            "granted                      1 GiB\n"
            "share                        -\n");
}

}  // namespace
}  // namespace allot::bench
