// Scenario files: groups, tasks, pins, hotplug and load in readable lines, run on the models of
// cpusets and run queues; what comes out is every CPU's queue over time, who moved and why, and how
// uneven it was.
//
//   kernel 2.6.23|2.6.25|6.1|6.12       rules to follow (6.1)
//   hierarchy v1|v2                     (v1)
//   machine cpus=4 nodes=1 llc=0-1/2-3  (4, 1, one cache)
//   balance every=20ms                  or: balance off (every 10 ms)
//   group /a cpus=0-1 mems=0 exclusive  made with all parents; mems default to all nodes
//   task w in=/a pin=1 count=3 load=50% weight=2 sleeping
//                                       makes w1 w2 w3 (w alone without count)
//   at 100ms pin w* 0                   sched_setaffinity
//   at 100ms write /a cpuset.cpus 0-3   also any other file of the group; no text: the empty list
//   at 100ms mkdir /b                   rmdir /b; show /b prints the files of a group
//   at 100ms move w1 /b                 also: sleep, wake, exit NAME; fork NAME CHILD;
//   at 100ms fork-begin w1 child        the fork has copied the mask and taken its start time; its
//                                       child comes onto the group's list in the middle of the
//                                       next write's scan
//   at 100ms offline 3                  online CPU; balance on|off|once; scan historical|today
//   run 500ms                           how long
//
// Names may end in * (all tasks that begin so). '#' starts a comment. One tick is 1 ms. What must
// not happen here: printing; the functions return text.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "model/cpuset.h"
#include "model/runqueue.h"

namespace allot::model {

struct ScenarioTask {
  std::string name;
  std::string group = "/";
  std::optional<Mask> pin;
  double weight = 1.0;
  double load = 1.0;
  bool sleeping = false;
};

struct ScenarioEvent {
  uint64_t tick = 0;
  std::vector<std::string> words;  // the action and its arguments
  int line = 0;
};

struct ScenarioGroup {
  std::string path;
  std::string cpus;
  std::string mems;
  bool exclusive = false;
  int line = 0;
};

struct Scenario {
  Era era = Era::k6_1;
  SchedForm form = SchedForm::kToday;
  Hierarchy hierarchy = Hierarchy::kV1;
  std::string kernel = "6.1";
  int cpus = 4;
  int nodes = 1;
  std::vector<Mask> llc;
  uint64_t balance_every = 10;  // 0: off
  std::vector<ScenarioGroup> groups;
  std::vector<ScenarioTask> tasks;
  std::vector<ScenarioEvent> events;
  uint64_t ticks = 1000;
};

// Reads a scenario; none and *error ("line 3: ...") when it cannot be read.
std::optional<Scenario> parse_scenario(std::string_view text, std::string* error);

struct ScenarioLog {
  uint64_t tick = 0;
  std::string text;
  int err = 0;
};

struct ScenarioShare {
  std::string name;
  std::string mask;
  double measured = 0;   // of one CPU, since the last event
  double predicted = 0;  // max-min fair
  int migrations = 0;
};

struct ScenarioResult {
  std::string kernel;
  int cpus = 0;
  uint64_t ticks = 0;
  std::vector<ScenarioLog> log;
  std::vector<std::vector<std::vector<std::string>>> queues;  // [tick][cpu] -> names, as they stand
  std::vector<bool> online_at_end;
  std::vector<Mask> online;  // [tick]
  std::vector<Migration> migrations;
  std::map<int, std::string> names;
  std::vector<ScenarioShare> shares;
  double mean_imbalance = 0;  // longest less shortest queue
  uint64_t idle_ticks = 0;    // CPU time idled while an allowed task waited elsewhere
  bool unknown = false;       // something was refused because its rule is not known
  uint64_t shares_since = 0;  // tick from which shares are measured
};

// Runs it. Actions that fail are logged with errno and reason, as the kernel would; the run goes
// on.
ScenarioResult run_scenario(const Scenario& scenario);

// A report of at most about 100 lines besides the log; what a list leaves out is counted.
std::string scenario_text(const ScenarioResult& result);
// A chart for light and dark pages: one strip per CPU, height and colour by queue length, names
// where they fit, moves as arrows, CPUs that are off line hatched, and every event by its number.
std::string scenario_svg(const ScenarioResult& result);

}  // namespace allot::model
