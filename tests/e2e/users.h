// Several users on one machine, without an entry in /etc/passwd: numbers that nobody else has. The
// test's own mounts stand over /run, so that /run/allot is what the test makes of it.
#pragma once

#include "tests/e2e/machine.h"

namespace allot::e2e {

inline constexpr unsigned kAnn = 64101;
inline constexpr unsigned kBob = 64102;

class Users : public Machine {
 protected:
  using Words = std::vector<std::string>;

  void SetUp() override;
  void TearDown() override;

  // Makes /run/allot anew, of root, with this mode and group.
  void make_folder(unsigned mode, unsigned group = 0);

  // `allot WORDS` as a user; `groups` beside their own, which has their number.
  std::unique_ptr<Command> start_as(unsigned user, Words words, const Words& groups = {});
  Outcome as(unsigned user, Words words, const Words& groups = {});
  // Any program, with the changes of `environment`.
  Outcome program_as(unsigned user, Words words);
  std::unique_ptr<Command> start_program_as(unsigned user, Words words, const Words& groups = {});
  nlohmann::json json_as(unsigned user, Words words);

  // `allot run --sim FLAGS -- gpu_program` as a user, once it is ready.
  std::unique_ptr<Command> gpu_program_as(unsigned user, Words flags, const Words& groups = {});

  // The command and the GPU program, where all users may read them.
  const std::string& open_allot() const { return allot_; }
  const std::string& open_gpu_program() const { return gpu_program_; }

  // One line on standard error, status 125, with all these texts.
  static void expect_refused(const Outcome& got, const Words& texts);

  bool mount_over(const std::string& what, const std::string& where, const char* type,
                  unsigned long flags, const std::string& data);

 private:
  std::string allot_, gpu_program_;
  std::vector<std::string> mounts_;
};

}  // namespace allot::e2e
