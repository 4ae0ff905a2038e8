// See users.h.
#include "tests/e2e/users.h"

#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>

namespace allot::e2e {
namespace {

namespace fs = std::filesystem;

// Once for the whole program: from here on its mounts are its own.
bool own_mounts() {
  static const bool own =
      unshare(CLONE_NEWNS) == 0 && mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0;
  return own;
}

}  // namespace

void Users::SetUp() {
  if (geteuid() != 0) GTEST_SKIP() << "needs root, to act as two users";
  if (!own_mounts() || !mount_over("tmpfs", "/run", "tmpfs", 0, "mode=0755")) {
    GTEST_SKIP() << "no permission to mount a file system here";
  }
  // A checkout may lie in a home that is closed to others.
  const fs::path from = fs::path(ALLOT_BINARY).parent_path().parent_path();
  const fs::path to = folder() + "/open";
  fs::create_directories(to / "bin");
  fs::copy_file(ALLOT_BINARY, to / "bin/allot");
  fs::copy(from / "lib", to / "lib", fs::copy_options::recursive | fs::copy_options::copy_symlinks);
  fs::copy_file(GPU_PROGRAM, to / "bin/gpu_program");
  allot_ = (to / "bin/allot").string();
  gpu_program_ = (to / "bin/gpu_program").string();
  ASSERT_EQ(chmod(folder().c_str(), 0755), 0);
  ASSERT_EQ(chmod((folder() + "/sim").c_str(), 01777), 0);
  environment["ALLOT_DIR"] = "";
  make_folder(01777);
  if (as(kAnn, {"--version"}).status != 0) GTEST_SKIP() << "another user cannot run the command";
}

void Users::TearDown() {
  while (!mounts_.empty()) {
    umount2(mounts_.back().c_str(), MNT_DETACH);
    mounts_.pop_back();
  }
}

bool Users::mount_over(const std::string& what, const std::string& where, const char* type,
                       unsigned long flags, const std::string& data) {
  if (mount(what.c_str(), where.c_str(), type, flags, data.c_str()) != 0) return false;
  mounts_.push_back(where);
  return true;
}

void Users::make_folder(unsigned mode, unsigned group) {
  std::error_code ignored;
  fs::remove_all("/run/allot", ignored);
  ASSERT_EQ(mkdir("/run/allot", 0700), 0);
  ASSERT_EQ(chown("/run/allot", 0, group), 0);
  ASSERT_EQ(chmod("/run/allot", mode), 0);
}

std::unique_ptr<Command> Users::start_program_as(unsigned user, Words words, const Words& groups) {
  const std::string id = std::to_string(user);
  Words whole = {"setpriv", "--reuid", id, "--regid", id};
  if (groups.empty()) {
    whole.push_back("--clear-groups");
  } else {
    std::string list;
    for (const std::string& group : groups) list += (list.empty() ? "" : ",") + group;
    whole.insert(whole.end(), {"--groups", list});
  }
  whole.insert(whole.end(), words.begin(), words.end());
  return std::make_unique<Command>(std::move(whole), environment);
}

std::unique_ptr<Command> Users::start_as(unsigned user, Words words, const Words& groups) {
  words.insert(words.begin(), allot_);
  return start_program_as(user, std::move(words), groups);
}

Outcome Users::as(unsigned user, Words words, const Words& groups) {
  const auto command = start_as(user, std::move(words), groups);
  command->close_input();
  const int status = command->wait();
  return {status, command->out(), command->err()};
}

Outcome Users::program_as(unsigned user, Words words) {
  const auto command = start_program_as(user, std::move(words));
  command->close_input();
  const int status = command->wait();
  return {status, command->out(), command->err()};
}

nlohmann::json Users::json_as(unsigned user, Words words) {
  const Outcome got = as(user, std::move(words));
  EXPECT_EQ(got.status, 0) << got.err;
  auto json = nlohmann::json::parse(got.out, nullptr, false);
  EXPECT_FALSE(json.is_discarded()) << got.out;
  return json;
}

std::unique_ptr<Command> Users::gpu_program_as(unsigned user, Words flags, const Words& groups) {
  Words words = {"run", "--sim"};
  words.insert(words.end(), flags.begin(), flags.end());
  words.insert(words.end(), {"--", gpu_program_});
  auto command = start_as(user, std::move(words), groups);
  const std::string first = command->line();
  if (first != "ready") {
    command->wait();
    ADD_FAILURE() << "the program said " << first << "; " << command->out() << command->err();
  }
  return command;
}

void Users::expect_refused(const Outcome& got, const Words& texts) {
  EXPECT_EQ(got.status, 125) << got.out << got.err;
  EXPECT_EQ(std::count(got.err.begin(), got.err.end(), '\n'), 1) << got.err;
  for (const std::string& text : texts)
    EXPECT_NE(got.err.find(text), std::string::npos) << text << " is not in: " << got.err;
}

}  // namespace allot::e2e
