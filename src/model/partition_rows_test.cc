// The kernel's own expectations of partitions, row by row: see partition_rows_6_1.txt.
#include <gtest/gtest.h>

#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "model/cpuset.h"

namespace allot::model {
namespace {

std::vector<std::string> split_row(const std::string& text, char at) {
  std::vector<std::string> parts;
  std::istringstream stream(text);
  for (std::string part; std::getline(stream, part, at);) {
    size_t from = part.find_first_not_of(' '), to = part.find_last_not_of(' ');
    if (from != std::string::npos) parts.push_back(part.substr(from, to - from + 1));
  }
  return parts;
}

Cpusets fresh_machine() {
  Cpusets m(Machine::flat(8), Era::k6_1, Hierarchy::kV2);
  EXPECT_TRUE(m.adopt_task({.tid = 1}));
  EXPECT_TRUE(m.write("/", "cgroup.subtree_control", "+cpuset").ok());
  EXPECT_TRUE(m.mkdir("/top").ok());
  EXPECT_TRUE(m.write("/top", "cpuset.cpus", "0-6").ok());
  EXPECT_TRUE(m.write("/top", "cpuset.cpus.partition", "root").ok());
  EXPECT_TRUE(m.write("/top", "cgroup.subtree_control", "+cpuset").ok());
  for (const char* group : {"/top/a", "/top/a/b", "/top/a/b/c", "/top/d"})
    EXPECT_TRUE(m.mkdir(group).ok());
  return m;
}

Outcome perform_word(Cpusets* m, const std::string& operation) {
  std::istringstream words(operation);
  std::string verb, group, value;
  words >> verb >> group >> value;
  std::string path = "/top/" + group;
  if (verb == "hand-down") return m->write(path, "cgroup.subtree_control", "+cpuset");
  if (verb == "cpus") return m->write(path, "cpuset.cpus", value);
  if (verb == "partition") return m->write(path, "cpuset.cpus.partition", value);
  if (verb == "task") return m->attach_process(path, 1);
  if (verb == "offline") return m->offline(std::stoi(group));
  if (verb == "online") return m->online(std::stoi(group));
  ADD_FAILURE() << "no such operation: " << operation;
  return {};
}

void expect_word(const Cpusets& m, const std::string& want, const std::string& row) {
  std::istringstream words(want);
  std::string group, verb, value;
  words >> group >> verb >> value;
  std::string path = "/top/" + group;
  if (verb == "on") {
    EXPECT_EQ(m.effective_cpus(path).list(), value == "none" ? "" : value) << want << "\n" << row;
    return;
  }
  std::string state = m.read(path, "cpuset.cpus.partition").value_or("");
  size_t dash = value.find('-');
  std::string begin = dash == std::string::npos ? value + "\n" : value.replace(dash, 1, " ") + " (";
  EXPECT_EQ(state.substr(0, begin.size()), begin) << want << "\n" << row;
}

TEST(PartitionRows, TheKernelsOwnExpectationsOf61Hold) {
  std::ifstream file(ALLOT_PARTITION_ROWS);
  int rows = 0;
  for (std::string row; std::getline(file, row);) {
    size_t arrow = row.find("=>");
    if (row.empty() || row[0] == '#' || arrow == std::string::npos) continue;
    ++rows;
    Cpusets m = fresh_machine();
    for (std::string operation : split_row(row.substr(0, arrow), ';')) {
      bool fails = operation.starts_with("fails ");
      if (fails) operation = operation.substr(6);
      Outcome outcome = perform_word(&m, operation);
      EXPECT_EQ(outcome.ok(), !fails) << operation << ": " << sentence(outcome.reason) << "\n"
                                      << row;
      EXPECT_NE(outcome.reason.why, Why::kUnknown) << operation << "\n" << row;
    }
    for (const std::string& want : split_row(row.substr(arrow + 2), ';')) expect_word(m, want, row);
  }
  EXPECT_EQ(rows, 60);
}

}  // namespace
}  // namespace allot::model
