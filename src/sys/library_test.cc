// Finding the driver's library on made-up machines, with whole and damaged caches.
#include "sys/library.h"

#include <elf.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstring>
#include <string>
#include <vector>

#include "sys/test_machine.h"

namespace allot::sys {
namespace {

#if defined(__x86_64__)
constexpr uint16_t kMachine = EM_X86_64;
constexpr uint32_t kFlags = 0x0303;
const char* const kTriplet = "/usr/lib/x86_64-linux-gnu/";
#else
constexpr uint16_t kMachine = EM_AARCH64;
constexpr uint32_t kFlags = 0x0a03;
const char* const kTriplet = "/usr/lib/aarch64-linux-gnu/";
#endif

std::string elf(uint16_t machine = kMachine, unsigned char bits = ELFCLASS64) {
  Elf64_Ehdr header = {};
  std::memcpy(header.e_ident, ELFMAG, SELFMAG);
  header.e_ident[EI_CLASS] = bits;
  header.e_machine = machine;
  return {reinterpret_cast<const char*>(&header), sizeof(header)};
}

struct CacheLine {
  std::string soname, path;
  uint32_t flags = kFlags;
  uint64_t hwcap = 0;
};

std::string cache_of(const std::vector<CacheLine>& lines) {
  std::string entries, texts;
  const uint32_t texts_at = static_cast<uint32_t>(48 + 24 * lines.size());
  auto put = [](std::string& to, auto value) {
    to.append(reinterpret_cast<const char*>(&value), sizeof(value));
  };
  for (const CacheLine& line : lines) {
    put(entries, line.flags);
    put(entries, static_cast<uint32_t>(texts_at + texts.size()));
    texts += line.soname + '\0';
    put(entries, static_cast<uint32_t>(texts_at + texts.size()));
    texts += line.path + '\0';
    put(entries, uint32_t{0});
    put(entries, line.hwcap);
  }
  std::string cache = "glibc-ld.so.cache1.1";
  put(cache, static_cast<uint32_t>(lines.size()));
  put(cache, static_cast<uint32_t>(texts.size()));
  cache.append(20, '\0');
  return cache + entries + texts;
}

class FindLibrary : public testing::Test {
 protected:
  std::string find(const LibraryQuery& query) {
    char out[256];
    auto found = find_library(machine_.root(), query, out, sizeof(out));
    return found ? out : "";
  }
  std::string find() { return find(LibraryQuery{"libcuda.so.1"}); }
  TestMachine machine_;
};

TEST_F(FindLibrary, NothingThere) {
  EXPECT_EQ(find(), "");
}

TEST_F(FindLibrary, PathThenCacheThenFolders) {
  machine_.write("/usr/lib/wsl/lib/libcuda.so.1", elf());
  EXPECT_EQ(find(), "/usr/lib/wsl/lib/libcuda.so.1");
  machine_.write(std::string(kTriplet) + "libcuda.so.1", elf());
  EXPECT_EQ(find(), std::string(kTriplet) + "libcuda.so.1");
  machine_.write("/opt/driver/libcuda.so.1", elf());
  machine_.write("/etc/ld.so.cache", cache_of({{"libother.so", "/opt/other"},
                                               {"libcuda.so.1", "/opt/driver/libcuda.so.1"}}));
  EXPECT_EQ(find(), "/opt/driver/libcuda.so.1");
  machine_.write("/my/libcuda.so.1", elf());
  LibraryQuery query{"libcuda.so.1"};
  query.library_path = "relative:/none::/my:/opt/driver";
  EXPECT_EQ(find(query), "/my/libcuda.so.1");
  query.library_path = "";
  EXPECT_EQ(find(query), "/opt/driver/libcuda.so.1");
}

TEST_F(FindLibrary, PassesOverOurOwn) {
  machine_.write("/allot/libcuda.so.1", elf());
  machine_.write("/real/libcuda.so.1", elf());
  machine_.link("/alias", "allot");
  LibraryQuery query{"libcuda.so.1"};
  query.library_path = "/allot:/alias:/real";
  EXPECT_EQ(find(query), "/allot/libcuda.so.1");
  query.skip_folder = "/allot";
  EXPECT_EQ(find(query), "/real/libcuda.so.1");
  query.skip_folder = nullptr;
  struct stat st;
  ASSERT_EQ(stat(machine_.path("/allot/libcuda.so.1").c_str(), &st), 0);
  query.skip_device = st.st_dev;
  query.skip_inode = st.st_ino;
  EXPECT_EQ(find(query), "/real/libcuda.so.1");
  machine_.write("/etc/ld.so.cache", cache_of({{"libcuda.so.1", "/allot/libcuda.so.1"}}));
  query.library_path = nullptr;
  EXPECT_EQ(find(query), "");
}

TEST_F(FindLibrary, PassesOverOtherProcessorsAndWhatIsNoLibrary) {
  machine_.write("/a/libcuda.so.1", elf(EM_386, ELFCLASS32));
  machine_.write("/b/libcuda.so.1", elf(EM_S390));
  machine_.write("/c/libcuda.so.1", "not a library at all, but long enough");
  machine_.write("/d/libcuda.so.1", "");
  std::filesystem::create_directories(machine_.path("/e/libcuda.so.1"));
  mkdir(machine_.path("/f").c_str(), 0755);
  ASSERT_EQ(mkfifo(machine_.path("/f/libcuda.so.1").c_str(), 0600), 0);
  machine_.write("/g/libcuda.so.1", elf());
  LibraryQuery query{"libcuda.so.1"};
  query.library_path = "/a:/b:/c:/d:/e:/f:/g";
  EXPECT_EQ(find(query), "/g/libcuda.so.1");
  machine_.write("/etc/ld.so.cache", cache_of({{"libcuda.so.1", "/g/libcuda.so.1", 0x0003},
                                               {"libcuda.so.1", "/g/libcuda.so.1", kFlags, 1},
                                               {"libcuda.so.1", "/none/libcuda.so.1"}}));
  EXPECT_EQ(find(), "");
}

TEST_F(FindLibrary, AnOldCacheMayStandBeforeTheNewOne) {
  machine_.write("/opt/libcuda.so.1", elf());
  std::string old = "ld.so-1.7.0";
  old += '\0';
  const uint32_t count = 3;
  old.append(reinterpret_cast<const char*>(&count), 4);
  old.append(count * 12, 'x');
  while (old.size() % 8 != 0) old += '\0';
  machine_.write("/etc/ld.so.cache", old + cache_of({{"libcuda.so.1", "/opt/libcuda.so.1"}}));
  EXPECT_EQ(find(), "/opt/libcuda.so.1");
}

TEST_F(FindLibrary, ADamagedCacheIsPassedOver) {
  machine_.write("/opt/libcuda.so.1", elf());
  const std::string whole =
      cache_of({{"liba.so", "/opt/liba.so"}, {"libcuda.so.1", "/opt/libcuda.so.1"}});
  for (size_t length = 0; length < whole.size(); ++length) {
    machine_.write("/etc/ld.so.cache", whole.substr(0, length));
    EXPECT_EQ(find(), "") << length;
  }
  for (size_t at = 20; at < whole.size(); ++at) {  // every byte broken once: no crash, no bad read
    std::string broken = whole;
    broken[at] = static_cast<char>(0xff);
    machine_.write("/etc/ld.so.cache", broken);
    const std::string found = find();
    EXPECT_TRUE(found.empty() || found == "/opt/libcuda.so.1") << at;
  }
  machine_.write("/etc/ld.so.cache", whole);
  EXPECT_EQ(find(), "/opt/libcuda.so.1");
}

TEST_F(FindLibrary, APathThatDoesNotFitIsPassedOver) {
  machine_.write("/opt/libcuda.so.1", elf());
  machine_.write("/etc/ld.so.cache", cache_of({{"libcuda.so.1", "/opt/libcuda.so.1"}}));
  char out[17];
  EXPECT_EQ(
      find_library(machine_.root(), LibraryQuery{"libcuda.so.1"}, out, sizeof(out)).error().code,
      Errc::kNotFound);
  char fits[18];
  EXPECT_TRUE(find_library(machine_.root(), LibraryQuery{"libcuda.so.1"}, fits, sizeof(fits)));
  EXPECT_STREQ(fits, "/opt/libcuda.so.1");
}

TEST(FindLibraryHere, FindsLibc) {
  char out[256];
  ASSERT_TRUE(find_library(Root{}, LibraryQuery{"libc.so.6"}, out, sizeof(out)));
  EXPECT_EQ(out[0], '/');
}

}  // namespace
}  // namespace allot::sys
