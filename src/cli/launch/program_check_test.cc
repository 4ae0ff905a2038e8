// What will be executed, and whether a preload reaches it, on files made for the purpose.
#include "cli/launch/program_check.h"

#include <elf.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <fstream>

#include "cli/failure.h"

namespace allot::cli {
namespace {

class ProgramCheck : public testing::Test {
 protected:
  ProgramCheck() {
    std::string pattern = testing::TempDir() + "/allot-program-XXXXXX";
    folder_ = mkdtemp(pattern.data());
  }
  ~ProgramCheck() override { std::filesystem::remove_all(folder_); }

  std::string file(const std::string& name, const std::string& bytes, mode_t mode = 0755) {
    const std::string path = folder_ + "/" + name;
    std::ofstream(path, std::ios::binary) << bytes;
    chmod(path.c_str(), mode);
    return path;
  }

  // A program of nothing but headers.
  static std::string elf(unsigned char word_size, uint16_t machine, const std::string& loader) {
    Elf64_Ehdr header = {};
    std::memcpy(header.e_ident, ELFMAG, SELFMAG);
    header.e_ident[EI_CLASS] = word_size;
    header.e_machine = machine;
    header.e_phoff = sizeof header;
    header.e_phentsize = sizeof(Elf64_Phdr);
    header.e_phnum = 1;
    Elf64_Phdr part = {};
    part.p_type = loader.empty() ? PT_LOAD : PT_INTERP;
    part.p_offset = sizeof header + sizeof part;
    part.p_filesz = loader.size() + 1;
    return std::string(reinterpret_cast<char*>(&header), sizeof header) +
           std::string(reinterpret_cast<char*>(&part), sizeof part) + loader + '\0';
  }

  int status_of(const std::string& name, const char* path) {
    try {
      resolve_program(name, path);
      return 0;
    } catch (const Failure& failure) {
      return failure.exit_status();
    }
  }

  std::string folder_;
};

#if defined(__x86_64__)
constexpr uint16_t kMachine = EM_X86_64;
constexpr uint16_t kOtherMachine = EM_AARCH64;
#else
constexpr uint16_t kMachine = EM_AARCH64;
constexpr uint16_t kOtherMachine = EM_X86_64;
#endif

TEST_F(ProgramCheck, FindsInPathInOrder) {
  const std::string here = file("tool", "#!/bin/sh\n");
  EXPECT_EQ(resolve_program("tool", ("/nonexistent:" + folder_ + ":/bin").c_str()), here);
  EXPECT_EQ(resolve_program(here, nullptr), here);
  EXPECT_EQ(status_of("tool", "/nonexistent"), kExitNotFound);
  EXPECT_EQ(status_of("", folder_.c_str()), kExitNotFound);
  EXPECT_EQ(status_of(folder_ + "/absent", nullptr), kExitNotFound);
}

TEST_F(ProgramCheck, ThereButNotExecutableIs126) {
  const std::string path = file("data", "x", 0644);
  EXPECT_EQ(status_of(path, nullptr), kExitNotExecutable);
  EXPECT_EQ(status_of("data", folder_.c_str()), kExitNotExecutable);
  EXPECT_EQ(status_of(folder_, nullptr), kExitNotExecutable) << "a folder";
}

TEST_F(ProgramCheck, TellsHowAProgramIsLinked) {
  EXPECT_EQ(preload_effect("/proc/self/exe"), Preload::kWorks);
  EXPECT_EQ(
      preload_effect(file("dynamic", elf(ELFCLASS64, kMachine, "/lib64/ld-linux-x86-64.so.2"))),
      Preload::kWorks);
  EXPECT_EQ(preload_effect(file("static", elf(ELFCLASS64, kMachine, ""))), Preload::kStatic);
  EXPECT_EQ(preload_effect(file("musl", elf(ELFCLASS64, kMachine, "/lib/ld-musl-x86_64.so.1"))),
            Preload::kOtherLoader);
  EXPECT_EQ(preload_effect(file("narrow", elf(ELFCLASS32, EM_386, "/lib/ld-linux.so.2"))),
            Preload::kOtherMachine);
  EXPECT_EQ(preload_effect(file("arm", elf(ELFCLASS64, kOtherMachine, "/lib/ld.so"))),
            Preload::kOtherMachine);
}

TEST_F(ProgramCheck, LooksThroughScriptsAtTheirInterpreter) {
  const std::string musl = file("musl", elf(ELFCLASS64, kMachine, "/lib/ld-musl-x86_64.so.1"));
  EXPECT_EQ(preload_effect(file("script", "#! " + musl + " -x\n")), Preload::kOtherLoader);
  EXPECT_EQ(preload_effect(file("fine", "#!/bin/sh\n")), Preload::kWorks);
  const std::string loop = folder_ + "/loop";
  EXPECT_EQ(preload_effect(file("loop", "#!" + loop + "\n")), Preload::kWorks) << "must end";
}

TEST_F(ProgramCheck, ASetUserIdProgramOfAnotherUserDropsPreloads) {
  if (geteuid() != 0) GTEST_SKIP() << "needs root to give a file away";
  const std::string path = file("setuid", elf(ELFCLASS64, kMachine, "/lib/ld.so"));
  ASSERT_EQ(chown(path.c_str(), 12345, getegid()), 0);
  ASSERT_EQ(chmod(path.c_str(), 04755), 0);
  EXPECT_EQ(preload_effect(path), Preload::kSetId);
  ASSERT_EQ(chown(path.c_str(), 0, getegid()), 0);
  ASSERT_EQ(chmod(path.c_str(), 04755), 0);
  EXPECT_EQ(preload_effect(path), Preload::kWorks) << "root gains nothing by root's program";
}

}  // namespace
}  // namespace allot::cli
