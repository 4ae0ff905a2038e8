// Recognising a libcuda in a memory map, and not finding a second one where there is none.
#include "bench/real_driver.h"

#include <dlfcn.h>
#include <gtest/gtest.h>

namespace allot::bench {
namespace {

TEST(MapsLine, NamesOnlyLibcuda) {
  std::string path;
  EXPECT_TRUE(maps_line_of_libcuda(
      "7f00-7f01 r-xp 00000000 08:01 42     /usr/lib/x/libcuda.so.580.159.04", &path));
  EXPECT_EQ(path, "/usr/lib/x/libcuda.so.580.159.04");
  EXPECT_TRUE(maps_line_of_libcuda("7f00-7f01 r-xp 0 08:01 42 /a b/libcuda.so", &path));
  EXPECT_EQ(path, "/a b/libcuda.so");
  EXPECT_FALSE(maps_line_of_libcuda("7f00-7f01 r-xp 0 08:01 42 /usr/lib/libcudart.so.13", &path));
  EXPECT_FALSE(maps_line_of_libcuda("7f00-7f01 r-xp 0 08:01 42 /usr/lib/libcuda.sound", &path));
  EXPECT_FALSE(maps_line_of_libcuda("7f00-7f01 rw-p 0 00:00 0 [heap]", &path));
  EXPECT_FALSE(maps_line_of_libcuda("", &path));
}

TEST(RealDriver, IsNotFoundInAProcessWithoutOne) {
  const RealDriver real = find_real_driver(RTLD_DEFAULT);
  EXPECT_EQ(real.handle, nullptr);
  EXPECT_TRUE(real.path.empty());
}

}  // namespace
}  // namespace allot::bench
