// Processes from /proc: text of the kernel, of made-up machines, and of real children.
#include "sys/process.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <string>
#include <thread>

#include "sys/test_machine.h"

namespace allot::sys {
namespace {

std::string stat_text(const std::string& comm, const std::string& state = "S",
                      const std::string& threads = "3") {
  return "42 (" + comm + ") " + state + " 17 42 42 0 -1 4194560 100 0 0 0 5 6 0 0 20 0 " + threads +
         " 0 987654321 1000000 200 18446744073709551615 1 1 0 0 0 0 0 0 0 0 0 0 17 1 0 0 0 0 0\n";
}

TEST(ReadProcess, FindsTheFields) {
  TestMachine machine;
  machine.write("/proc/42/stat", stat_text("python"));
  auto process = read_process(machine.root(), 42);
  ASSERT_TRUE(process);
  EXPECT_EQ(process->pid, 42u);
  EXPECT_EQ(process->parent, 17u);
  EXPECT_EQ(process->start_time, 987654321u);
  EXPECT_EQ(process->threads, 3u);
  EXPECT_EQ(process->state, 'S');
  EXPECT_STREQ(process->command, "python");
  EXPECT_FALSE(process->gone());
}

TEST(ReadProcess, ANameMayHoldAnything) {
  TestMachine machine;
  for (const char* name :
       {")", "a) S 1 2 3 (b", "() () ()", "", " ", "a\nb", ") Z 0 0 0 0 0 0 0 0"}) {
    machine.write("/proc/42/stat", stat_text(name));
    auto process = read_process(machine.root(), 42);
    ASSERT_TRUE(process) << name;
    EXPECT_EQ(process->start_time, 987654321u) << name;
    EXPECT_EQ(process->parent, 17u) << name;
    EXPECT_STREQ(process->command, name);
  }
  machine.write("/proc/42/stat", stat_text(std::string(64, 'x')));
  EXPECT_STREQ(read_process(machine.root(), 42)->command, std::string(31, 'x').c_str());
}

TEST(ReadProcess, DamagedTextIsRefused) {
  TestMachine machine;
  const std::string whole = stat_text("python");
  const size_t end_of_start = whole.find("987654321");
  for (size_t length = 0; length <= end_of_start; ++length) {
    machine.write("/proc/42/stat", whole.substr(0, length));
    auto process = read_process(machine.root(), 42);
    ASSERT_FALSE(process) << length;
    EXPECT_EQ(process.error().code, Errc::kDamaged);
  }
  machine.write("/proc/42/stat", std::string(5000, '1'));
  EXPECT_FALSE(read_process(machine.root(), 42));
  EXPECT_EQ(read_process(machine.root(), 43).error().code, Errc::kNotFound);
}

TEST(ReadProcess, AZombieIsGoneButNotWhileItsThreadsRun) {
  TestMachine machine;
  machine.write("/proc/42/stat", stat_text("x", "Z", "1"));
  EXPECT_TRUE(read_process(machine.root(), 42)->gone());
  machine.write("/proc/42/stat", stat_text("x", "Z", "2"));
  EXPECT_FALSE(read_process(machine.root(), 42)->gone());
  machine.write("/proc/42/stat", stat_text("x", "X", "0"));
  EXPECT_TRUE(read_process(machine.root(), 42)->gone());
}

// The kernel's own behaviour that gone() rests on.
TEST(ReadProcess, TheKernelCountsThreadsOfZombiesAsWeThink) {
  const pid_t child = fork();
  if (child == 0) {
    std::thread([] {
      for (;;) pause();
    }).detach();
    syscall(SYS_exit, 0);  // the main thread ends, the process lives
  }
  auto state = [&] { return read_process(Root{}, static_cast<uint32_t>(child)); };
  for (int i = 0; i < 10000 && state()->state != 'Z'; ++i) usleep(1000);
  EXPECT_EQ(state()->state, 'Z');
  EXPECT_FALSE(state()->gone());
  kill(child, SIGKILL);
  for (int i = 0; i < 10000 && !state()->gone(); ++i) usleep(1000);
  EXPECT_TRUE(state()->gone());
  waitpid(child, nullptr, 0);
  EXPECT_EQ(state().error().code, Errc::kNotFound);
}

TEST(ReadProcess, OfThisProcess) {
  prctl(PR_SET_NAME, "od)d (name");
  auto self = read_process(Root{}, 0);
  ASSERT_TRUE(self);
  EXPECT_EQ(self->pid, static_cast<uint32_t>(getpid()));
  EXPECT_EQ(self->parent, static_cast<uint32_t>(getppid()));
  EXPECT_STREQ(self->command, "od)d (name");
  EXPECT_EQ(current_pid(), self->pid);
  EXPECT_EQ(current_tid(), self->pid);
  EXPECT_EQ(read_process(Root{}, self->pid)->start_time, self->start_time);
  EXPECT_GE(read_process(Root{}, self->parent)->pid, 1u);
}

TEST(PidNamespace, IsTheInodeInTheLink) {
  TestMachine machine;
  machine.link("/proc/42/ns/pid", "pid:[4026531836]");
  EXPECT_EQ(*pid_namespace(machine.root(), 42), 4026531836u);
  machine.link("/proc/43/ns/pid", "mnt:[4026531836]");
  EXPECT_EQ(pid_namespace(machine.root(), 43).error().code, Errc::kDamaged);
  machine.link("/proc/44/ns/pid", "pid:[");
  EXPECT_EQ(pid_namespace(machine.root(), 44).error().code, Errc::kDamaged);
  EXPECT_EQ(pid_namespace(machine.root(), 45).error().code, Errc::kNotFound);
  EXPECT_EQ(*pid_namespace(Root{}, 0), *pid_namespace(Root{}, current_pid()));
}

TEST(BootId, IsReadWholeOrNotAtAll) {
  TestMachine machine;
  const char* const file = "/proc/sys/kernel/random/boot_id";
  machine.write(file, "00010203-0405-0607-0809-0a0b0c0d0eff\n");
  uint8_t id[16];
  ASSERT_TRUE(boot_id(machine.root(), id));
  for (uint8_t i = 0; i < 15; ++i) EXPECT_EQ(id[i], i);
  EXPECT_EQ(id[15], 255);
  for (const char* bad : {"", "\n", "00010203-0405-0607-0809-0a0b0c0d0ef\n", "not a boot id at all",
                          "00010203-0405-0607-0809-0a0b0c0d0eff0\n"}) {
    machine.write(file, bad);
    EXPECT_EQ(boot_id(machine.root(), id).error().code, Errc::kDamaged) << bad;
  }
  EXPECT_TRUE(boot_id(Root{}, id));
}

TEST(Maps, TellWhoMapsAFile) {
  TestMachine machine;
  machine.write("/a", std::string(4096, 'x'));
  auto fd = open_file(machine.root(), "/a", O_RDONLY);
  auto map = map_file(fd->get(), 4096, false);
  ASSERT_TRUE(map);
  auto key = mapped_at(Root{}, *map);
  ASSERT_TRUE(key);
  EXPECT_EQ(key->inode, info_of(fd->get())->inode);
  EXPECT_TRUE(*process_maps(Root{}, 0, *key));
  EXPECT_FALSE(*process_maps(Root{}, 0, MapKey{key->major, key->minor, key->inode + 1000000}));
  unmap(*map, 4096);
  EXPECT_FALSE(*process_maps(Root{}, 0, *key));
  int local = 0;
  EXPECT_EQ(mapped_at(Root{}, &local).error().code, Errc::kNotFound);  // a stack is no file
}

TEST(Maps, LongPathsAndOddLinesArePassedOver) {
  TestMachine machine;
  const std::string text =
      "garbage\n\n7f00-7f10 r--p 00000000 08:01 7 /" + std::string(9000, 'p') +
      "\n7f10-7f20 rw-s 00000000 00:2a 1234                       /dev/shm/x\n";
  machine.write("/proc/42/maps", text);
  EXPECT_TRUE(*process_maps(machine.root(), 42, MapKey{0, 0x2a, 1234}));
  EXPECT_TRUE(*process_maps(machine.root(), 42, MapKey{8, 1, 7}));
  EXPECT_FALSE(*process_maps(machine.root(), 42, MapKey{0, 0x2b, 1234}));
  EXPECT_EQ(process_maps(machine.root(), 43, MapKey{}).error().code, Errc::kNotFound);
}

}  // namespace
}  // namespace allot::sys
