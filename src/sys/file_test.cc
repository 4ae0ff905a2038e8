// The file seam: results and errors of each call, no descriptor left, errno untouched.
#include "sys/file.h"

#include <dirent.h>
#include <gtest/gtest.h>
#include <sys/file.h>
#include <sys/stat.h>

#include <cerrno>
#include <set>
#include <string>
#include <thread>

#include "sys/clock.h"
#include "sys/environment.h"
#include "sys/test_machine.h"

namespace allot::sys {
namespace {

size_t open_descriptors() {
  size_t count = 0;
  for ([[maybe_unused]] auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) ++count;
  return count;
}

TEST(Files, ReadsBelowTheRoot) {
  TestMachine machine;
  machine.write("/etc/name", "box\n");
  char text[16];
  errno = 77;
  const size_t before = open_descriptors();
  auto length = read_file(machine.root(), "/etc/name", text, sizeof(text));
  ASSERT_TRUE(length);
  EXPECT_EQ(*length, 4u);
  EXPECT_STREQ(text, "box\n");
  EXPECT_EQ(read_file(machine.root(), "/etc/none", text, sizeof(text)).error().code,
            Errc::kNotFound);
  EXPECT_EQ(errno, 77);
  EXPECT_EQ(open_descriptors(), before);
}

TEST(Files, AFileThatDoesNotFitIsAnError) {
  TestMachine machine;
  machine.write("/a", "12345");
  char text[8];
  EXPECT_EQ(read_file(machine.root(), "/a", text, 5).error().code, Errc::kFull);
  EXPECT_EQ(read_file(machine.root(), "/a", text, 0).error().code, Errc::kFull);
  EXPECT_EQ(*read_file(machine.root(), "/a", text, 6), 5u);
  machine.write("/empty", "");
  EXPECT_EQ(*read_file(machine.root(), "/empty", text, 1), 0u);
  EXPECT_STREQ(text, "");
}

TEST(Files, ErrorsAreTold) {
  EXPECT_EQ(error_of(ENOENT).code, Errc::kNotFound);
  EXPECT_EQ(error_of(EACCES).code, Errc::kNoPermission);
  EXPECT_EQ(error_of(ELOOP).code, Errc::kNoPermission);
  EXPECT_EQ(error_of(EEXIST).code, Errc::kExists);
  EXPECT_EQ(error_of(ENOSPC).code, Errc::kFull);
  EXPECT_EQ(error_of(EDQUOT).code, Errc::kFull);
  EXPECT_EQ(error_of(ENOSYS).code, Errc::kUnsupported);
  EXPECT_EQ(error_of(EIO).code, Errc::kSystem);
  EXPECT_EQ(error_of(EIO).os_errno, EIO);
}

TEST(Files, DescriptorsAreCloseOnExecAndClosed) {
  TestMachine machine;
  machine.write("/a", "x");
  int number;
  {
    auto fd = open_file(machine.root(), "/a", O_RDONLY);
    ASSERT_TRUE(fd);
    number = fd->get();
    EXPECT_EQ(fcntl(number, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
    Fd moved = std::move(*fd);
    EXPECT_FALSE(*fd);
    EXPECT_EQ(moved.get(), number);
  }
  EXPECT_EQ(fcntl(number, F_GETFD), -1);
}

TEST(Files, InfoIsWhatStatSays) {
  TestMachine machine;
  machine.write("/a", "hello");
  machine.link("/l", "a");
  struct stat st;
  ASSERT_EQ(stat(machine.path("/a").c_str(), &st), 0);
  auto fd = open_file(machine.root(), "/a", O_RDONLY);
  auto info = info_of(fd->get());
  ASSERT_TRUE(info);
  EXPECT_EQ(info->inode, st.st_ino);
  EXPECT_EQ(info->device, st.st_dev);
  EXPECT_EQ(info->bytes, 5u);
  EXPECT_EQ(info->mode, st.st_mode);
  EXPECT_EQ(info->uid, st.st_uid);
  EXPECT_EQ(info->gid, st.st_gid);
  EXPECT_EQ(info->links, 1u);
  EXPECT_TRUE(S_ISLNK(info_at(machine.root().fd, "l")->mode));
  EXPECT_EQ(info_at(machine.root().fd, "none").error().code, Errc::kNotFound);
}

TEST(Files, ReadAndWriteAtOffsets) {
  TestMachine machine;
  machine.write("/a", "0123456789");
  auto fd = open_file(machine.root(), "/a", O_RDWR);
  ASSERT_TRUE(write_at(fd->get(), "xy", 2, 4));
  char text[16] = {};
  EXPECT_EQ(*read_at(fd->get(), text, 4, 3), 4u);
  EXPECT_STREQ(text, "3xy6");
  EXPECT_EQ(*read_at(fd->get(), text, 16, 8), 2u);
  EXPECT_EQ(*read_at(fd->get(), text, 16, 80), 0u);
}

TEST(Files, LinksAreReadAndCut) {
  TestMachine machine;
  machine.link("/l", "pid:[42]");
  char text[16];
  EXPECT_EQ(*read_link(machine.root(), "/l", text, sizeof(text)), 8u);
  EXPECT_STREQ(text, "pid:[42]");
  EXPECT_EQ(read_link(machine.root(), "/l", text, 8).error().code, Errc::kFull);
}

TEST(NewFile, HasNoNameUntilPublishedAndReplacesNothing) {
  TestMachine machine;
  const mode_t mask = umask(0077);
  auto file = NewFile::create(machine.root().fd, 0640);
  umask(mask);
  ASSERT_TRUE(file);
  EXPECT_TRUE(std::filesystem::is_empty(machine.path("/")));
  ASSERT_TRUE(write_at(file->fd(), "new", 3, 0));
  ASSERT_TRUE(file->publish("a"));
  EXPECT_EQ(info_at(machine.root().fd, "a")->mode & 0777, 0640u);
  auto second = NewFile::create(machine.root().fd, 0600);
  EXPECT_EQ(second->publish("a").error().code, Errc::kExists);
  second->discard();
  char text[8];
  EXPECT_EQ(*read_file(machine.root(), "/a", text, sizeof(text)), 3u);
  ASSERT_TRUE(remove_at(machine.root().fd, "a"));
  EXPECT_TRUE(std::filesystem::is_empty(machine.path("/")));
}

TEST(NewFile, WithATemporaryNameTooNothingIsLeft) {
  TestMachine machine;
  {
    auto file = NewFile::create(machine.root().fd, 0640, true);
    ASSERT_TRUE(file);
    auto other = NewFile::create(machine.root().fd, 0600, true);
    ASSERT_TRUE(other);
    ASSERT_TRUE(write_at(file->fd(), "new", 3, 0));
    ASSERT_TRUE(file->publish("a"));
    EXPECT_EQ(other->publish("a").error().code, Errc::kExists);
    other->discard();
  }
  EXPECT_EQ(info_at(machine.root().fd, "a")->links, 1u);
  EXPECT_EQ(info_at(machine.root().fd, "a")->mode & 0777, 0640u);
  ASSERT_TRUE(remove_at(machine.root().fd, "a"));
  EXPECT_TRUE(std::filesystem::is_empty(machine.path("/")));
}

TEST(Files, ALockIsHeldByOneAndEndsWithItsDescriptor) {
  TestMachine machine;
  machine.write("/a", "x");
  auto one = open_file(machine.root(), "/a", O_RDWR);
  {
    auto two = open_file(machine.root(), "/a", O_RDWR);
    ASSERT_TRUE(lock_now(two->get()));
    EXPECT_EQ(lock_now(one->get()).error().code, Errc::kExists);
  }
  EXPECT_TRUE(lock_now(one->get()));
}

TEST(Files, AllocationPastTheDiskIsAnError) {
  TestMachine machine;
  auto file = NewFile::create(machine.root().fd, 0600);
  ASSERT_TRUE(file);
  ASSERT_TRUE(set_size(file->fd(), 1 << 20));
  EXPECT_EQ(info_of(file->fd())->bytes, 1u << 20);
  auto made = allocate(file->fd(), 4096, 8192);
  EXPECT_TRUE(made || made.error().code == Errc::kUnsupported);
  EXPECT_FALSE(allocate(file->fd(), 0, uint64_t{1} << 60));
}

TEST(Files, AFolderIsListedToTheEnd) {
  TestMachine machine;
  std::set<std::string> wanted;
  for (int i = 0; i < 500; ++i) {  // more than one buffer of the kernel's
    const std::string name = "a-rather-long-name-of-a-file-" + std::to_string(i);
    machine.write("/" + name, "");
    wanted.insert(name);
  }
  std::set<std::string> seen;
  auto fd = open_file(machine.root(), "/", O_RDONLY | O_DIRECTORY);
  ASSERT_TRUE(fd);
  auto note = [](void* context, const char* name) {
    static_cast<std::set<std::string>*>(context)->insert(name);
    return true;
  };
  ASSERT_TRUE(list_folder(fd->get(), note, &seen));
  EXPECT_EQ(seen, wanted);
  int count = 0;
  auto stop = [](void* context, const char*) { return ++*static_cast<int*>(context) < 3; };
  auto again = open_file(machine.root(), "/", O_RDONLY | O_DIRECTORY);
  ASSERT_TRUE(list_folder(again->get(), stop, &count));
  EXPECT_EQ(count, 3);
}

TEST(Environment, IsReadWithoutGetenv) {
  setenv("ALLOT_TEST_A", "one", 1);
  setenv("ALLOT_TEST_AB", "two", 1);
  setenv("ALLOT_TEST_EMPTY", "", 1);
  EXPECT_STREQ(environment("ALLOT_TEST_A"), "one");
  EXPECT_STREQ(environment("ALLOT_TEST_AB"), "two");
  EXPECT_STREQ(environment("ALLOT_TEST_EMPTY"), "");
  EXPECT_EQ(environment("ALLOT_TEST_"), nullptr);
  char** saved = environ;
  environ = nullptr;  // after clearenv()
  EXPECT_EQ(environment("ALLOT_TEST_A"), nullptr);
  environ = saved;
}

TEST(Clocks, GoForward) {
  const uint64_t first = monotonic_ns();
  EXPECT_GE(monotonic_ns(), first);
  EXPECT_GT(realtime_ns(), 1700000000ull * 1000000000ull);
}

}  // namespace
}  // namespace allot::sys
