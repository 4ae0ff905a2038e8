// What doctor says of a driver's branch.
#include <gtest/gtest.h>

#include "cli/doctor/doctor_checks.h"

namespace allot::cli {
namespace {

TEST(DoctorTime, NamesTheBranchWhoseCallsWereCompared) {
  for (const char* version : {"535.54.03", "550.163.01", "560.35.03", "570.86.15", "575.64",
                              "580.159.04", "590.48.01", "595.45.04"}) {
    const Finding finding = rm_calls_of(version);
    EXPECT_EQ(finding.verdict, Verdict::kGood) << version;
    EXPECT_NE(finding.found.find("branch " + std::string(version, 3) + " ("), std::string::npos)
        << finding.found;
  }
}

TEST(DoctorTime, SaysThatABranchIsNotInTheTable) {
  for (const char* version : {"", "470.82.01", "540.1", "610.10", "5800.1", "x580.1", "580x.1"}) {
    const Finding finding = rm_calls_of(version);
    EXPECT_EQ(finding.verdict, Verdict::kNote) << version;
    EXPECT_NE(finding.found.find("not among those"), std::string::npos) << finding.found;
    EXPECT_FALSE(finding.advice.empty());
  }
}

TEST(DoctorTime, SaysThatABranchHasOtherLayouts) {
  const Finding finding = rm_calls_of("525.147.05");
  EXPECT_EQ(finding.verdict, Verdict::kNote);
  EXPECT_NE(finding.found.find("branch 525 has other layouts"), std::string::npos) << finding.found;
}

}  // namespace
}  // namespace allot::cli
