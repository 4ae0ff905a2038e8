// A folder that looks like a machine, for tests of code below a Root. Not part of the product.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include "sys/file.h"

namespace allot::sys {

class TestMachine {
 public:
  TestMachine() {
    char text[] = "/tmp/allot-machine-XXXXXX";
    if (mkdtemp(text) == nullptr) std::terminate();
    path_ = text;
    fd_ = Fd(::open(text, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  }
  ~TestMachine() { std::filesystem::remove_all(path_); }
  Root root() const { return Root{fd_.get()}; }
  std::string path(const std::string& inside) const { return path_ + inside; }
  void write(const std::string& inside, const std::string& text) {
    std::filesystem::create_directories(std::filesystem::path(path(inside)).parent_path());
    std::ofstream(path(inside), std::ios::binary) << text;
  }
  void link(const std::string& inside, const std::string& target) {
    std::filesystem::create_directories(std::filesystem::path(path(inside)).parent_path());
    std::filesystem::create_symlink(target, path(inside));
  }

 private:
  std::string path_;
  Fd fd_;
};

}  // namespace allot::sys
