// See ops.h.
#include "ops.h"

#include <algorithm>
#include <cerrno>
#include <charconv>

namespace allot::kernel_test {
namespace {

using model::Cpusets;
using model::Hierarchy;
using model::Mask;

constexpr std::string_view kNames[] = {"mkdir",    "rmdir",     "write", "fork",
                                       "thread",   "fork_into", "exit",  "wake",
                                       "affinity", "offline",   "online"};
constexpr int kMaxTasks = 12;
constexpr int kMaxGroups = 8;

std::string escape(std::string_view text) {
  constexpr char kHex[] = "0123456789abcdef";
  std::string out;
  for (char c : text) {
    if (c > ' ' && c < 127 && c != '%' && c != ';') {
      out += c;
    } else {
      auto byte = static_cast<unsigned char>(c);
      out += '%';
      out += kHex[byte >> 4];
      out += kHex[byte & 15];
    }
  }
  return out.empty() ? "%" : out;
}

std::string unescape(std::string_view text) {
  auto digit = [](char c) { return c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10; };
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      out += text[i];
    } else if (i + 2 < text.size()) {
      out += static_cast<char>(digit(text[i + 1]) * 16 + digit(text[i + 2]));
      i += 2;
    }
  }
  return out;
}

std::vector<std::string> split(std::string_view line) {
  std::vector<std::string> words;
  while (!line.empty()) {
    std::string_view word = line.substr(0, line.find(' '));
    line.remove_prefix(std::min(word.size() + 1, line.size()));
    if (!word.empty()) words.emplace_back(word);
  }
  return words;
}

}  // namespace

std::string Op::line() const {
  std::string out(kNames[static_cast<size_t>(kind)]);
  switch (kind) {
    case Kind::kMkdir:
    case Kind::kRmdir:
      return out + " " + path;
    case Kind::kWrite:
      return out + " " + path + " " + file + " " + escape(text);
    case Kind::kFork:
    case Kind::kThread:
      return out + " " + std::to_string(tid) + " " + std::to_string(child);
    case Kind::kForkInto:
      return out + " " + std::to_string(tid) + " " + std::to_string(child) + " " + path;
    case Kind::kExit:
    case Kind::kWake:
      return out + " " + std::to_string(tid);
    case Kind::kAffinity:
      return out + " " + std::to_string(tid) + " " + escape(text);
    case Kind::kOffline:
    case Kind::kOnline:
      return out + " " + std::to_string(cpu);
  }
  return out;
}

bool Op::parse(std::string_view line, Op* op) {
  std::vector<std::string> words = split(line);
  auto name =
      words.empty() ? std::end(kNames) : std::find(std::begin(kNames), std::end(kNames), words[0]);
  if (name == std::end(kNames)) return false;
  *op = Op();
  op->kind = static_cast<Kind>(name - std::begin(kNames));
  constexpr size_t kWords[] = {2, 2, 4, 3, 3, 4, 2, 2, 3, 2, 2};
  if (words.size() != kWords[static_cast<size_t>(op->kind)]) return false;
  switch (op->kind) {
    case Kind::kMkdir:
    case Kind::kRmdir:
      op->path = words[1];
      break;
    case Kind::kWrite:
      op->path = words[1];
      op->file = words[2];
      op->text = unescape(words[3]);
      break;
    case Kind::kForkInto:
      op->path = words[3];
      [[fallthrough]];
    case Kind::kFork:
    case Kind::kThread:
      op->tid = std::atoi(words[1].c_str());
      op->child = std::atoi(words[2].c_str());
      break;
    case Kind::kExit:
    case Kind::kWake:
      op->tid = std::atoi(words[1].c_str());
      break;
    case Kind::kAffinity:
      op->tid = std::atoi(words[1].c_str());
      op->text = unescape(words[2]);
      break;
    case Kind::kOffline:
    case Kind::kOnline:
      op->cpu = std::atoi(words[1].c_str());
      break;
  }
  return true;
}

uint64_t Random::next() {
  uint64_t z = (state_ += 0x9e3779b97f4a7c15);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

uint64_t episode_seed(uint64_t seed, uint64_t episode) {
  return Random(seed * 1000003 + episode).next();
}

uint32_t state_hash(int err, const std::vector<std::string>& lines) {
  uint32_t hash = 2166136261u;
  auto add = [&](char c) { hash = (hash ^ static_cast<unsigned char>(c)) * 16777619u; };
  add(static_cast<char>(err));
  for (const std::string& line : lines) {
    for (char c : line) add(c);
    add('\n');
  }
  return hash;
}

std::string Generator::group(const Cpusets& model, bool with_root) {
  std::vector<std::string> paths = model.groups();
  size_t first = with_root || paths.size() == 1 ? 0 : 1;
  return paths[first + static_cast<size_t>(random_.below(static_cast<int>(paths.size() - first)))];
}

int Generator::task(const Cpusets& model) {
  std::vector<int> tids = model.all_tasks();
  std::erase(tids, 1);
  return tids.empty() ? 0 : tids[static_cast<size_t>(random_.below(static_cast<int>(tids.size())))];
}

Mask Generator::some_of(const Mask& from) {
  Mask mask;
  for (int bit = from.first(); bit >= 0; bit = from.next(bit)) {
    if (random_.chance(50)) mask.set(bit);
  }
  return mask.empty() ? from : mask;
}

std::string Generator::cpu_text(const Cpusets& model, const std::string& path) {
  constexpr const char* kOdd[] = {"foo", "3-1",  "-1",    "8",  "0-99",       "0-3:1/2",    "all",
                                  "N",   "0,,1", " 2-5 ", "1-", "4294967295", "99999999999"};
  std::string parent = path.substr(0, path.rfind('/'));
  if (parent.empty()) parent = "/";
  std::string text;
  switch (random_.below(11)) {
    case 10:
      text = model.effective_cpus(group(model, false)).list();
      break;
    case 0:
      text = kOdd[random_.below(13)];
      break;
    case 1:
      text = "";
      break;
    case 2:
      text = model.cpus(path).list();
      break;
    case 3:
      text = Mask{random_.below(8)}.list();
      break;
    case 4: {
      int first = random_.below(8);
      text = Mask::range(first, first + random_.below(8 - first)).list();
      break;
    }
    case 5:
      text = some_of(Mask::range(0, 7)).list();
      break;
    case 6:
      text = model.cpus(parent).list();
      break;
    default: {
      Mask from = model.effective_cpus(parent);
      text = some_of(from.empty() ? Mask::range(0, 7) : from).list();
    }
  }
  return text + (random_.chance(80) || text.empty() ? "\n" : "");
}

std::string Generator::mem_text(const Cpusets& model, const std::string& path) {
  constexpr const char* kTexts[] = {"0", "1", "0-1", "0-1", "0-1",  "0",
                                    "1", "",  "2",   "x",   "1023", "1024"};
  std::string parent = path.substr(0, path.rfind('/'));
  if (parent.empty()) parent = "/";
  if (random_.chance(30)) return model.mems(parent).list() + "\n";
  return std::string(kTexts[random_.below(12)]) + "\n";
}

std::string Generator::flag_text() {
  constexpr const char* kTexts[] = {"0", "1",          "1",   "0",  "1",  "2",
                                    "x", "4294967296", "0x1", "-1", " 1", "99999999999999999999"};
  int pick = random_.chance(85) ? random_.below(5) : random_.below(12);
  return std::string(kTexts[pick]) + "\n";
}

// A member, a root or an isolated partition, and now and then no word that the kernel knows. Where
// there are exclusive CPUs (6.12), those too.
Op Generator::partition_op(const Cpusets& model) {
  constexpr const char* kStates[] = {"root", "root",   "root",   "root",   "isolated",
                                     "root", "member", "member", "member", "isolated"};
  Op op;
  op.kind = Kind::kWrite;
  op.path = group(model, false);
  op.file = "cpuset.cpus.partition";
  op.text = std::string(random_.chance(97) ? kStates[random_.below(10)] : "invalid") + "\n";
  if (model.era() >= model::Era::k6_12 && random_.chance(45)) {
    op.file = "cpuset.cpus.exclusive";
    op.text = random_.chance(40) ? model.cpus(op.path).list() + "\n" : cpu_text(model, op.path);
  }
  return op;
}

Op Generator::write_op(const Cpusets& model) {
  constexpr const char* kFlags[] = {
      "cpuset.cpu_exclusive",      "cpuset.cpu_exclusive",      "cpuset.cpu_exclusive",
      "cpuset.mem_exclusive",      "cpuset.mem_exclusive",      "cpuset.mem_hardwall",
      "cpuset.sched_load_balance", "cpuset.memory_spread_page", "cpuset.memory_spread_slab",
      "cgroup.clone_children",     "cgroup.clone_children",     "cpuset.memory_pressure_enabled"};
  bool v2 = model.hierarchy() == Hierarchy::kV2;
  if (v2 && random_.chance(22)) return partition_op(model);
  Op op;
  op.kind = Kind::kWrite;
  op.path = group(model, random_.chance(v2 ? 25 : 10));
  int pick = random_.below(100);
  if (pick < 45) {
    op.file = "cpuset.cpus";
    op.text = cpu_text(model, op.path);
  } else if (pick < (v2 ? 58 : 65)) {
    op.file = "cpuset.mems";
    op.text = mem_text(model, op.path);
  } else if (pick < 67) {
    op.file = v2 ? "cpuset.cpus.effective" : "cpuset.effective_cpus";
    op.text = "1\n";
  } else if (!v2 && pick < 72) {
    constexpr const char* kLevels[] = {
        "-1", "0", "3", "4", "5", "-2", "100", "x", "-99999999999999999999"};
    op.file = "cpuset.sched_relax_domain_level";
    op.text = std::string(kLevels[random_.below(9)]) + "\n";
  } else if (!v2) {
    op.file = kFlags[random_.below(12)];
    op.text = flag_text();
  } else if (pick < 92) {
    constexpr const char* kControl[] = {"+cpuset", "+cpuset",  "+cpuset",       "+cpuset",
                                        "-cpuset", "-cpuset",  "+misc",         "-misc",
                                        "cpuset",  "+nothing", "+cpuset +misc", "-misc -cpuset",
                                        "",        "+pids",    "-pids"};
    op.file = "cgroup.subtree_control";
    op.text = std::string(kControl[random_.below(15)]) + "\n";
    if (random_.chance(50)) op.path = group(model, true);
  } else {
    op.file = "cgroup.type";
    op.text = random_.chance(90) ? "threaded\n" : "domain\n";
  }
  return op;
}

// A move between groups with the same CPUs and other memory nodes; false where there is none. By
// chance alone one in some thousand operations is such a move, and a rule that compares CPUs only
// lives on.
bool Generator::memory_move(const Cpusets& model, Op* op) {
  std::vector<std::pair<int, std::string>> moves;
  for (int tid : model.all_tasks()) {
    std::string from = model.group_of(tid);
    for (const std::string& to : model.groups()) {
      if (tid != 1 && model.effective_cpus(to) == model.effective_cpus(from) &&
          model.effective_mems(to) != model.effective_mems(from))
        moves.emplace_back(tid, to);
    }
  }
  if (moves.empty()) return false;
  const auto& [tid, to] = moves[static_cast<size_t>(random_.below(static_cast<int>(moves.size())))];
  op->path = to;
  op->text = "@" + std::to_string(tid) + "\n";
  return true;
}

Op Generator::attach_op(const Cpusets& model) {
  bool v2 = model.hierarchy() == Hierarchy::kV2;
  Op op;
  op.kind = Kind::kWrite;
  op.path = group(model, random_.chance(15));
  op.file = random_.chance(50) ? "cgroup.procs" : (v2 ? "cgroup.threads" : "tasks");
  if (random_.chance(25) && memory_move(model, &op)) return op;
  int tid = task(model);
  op.text = "@" + std::to_string(tid) + "\n";
  if (tid == 0 || random_.chance(5)) {
    constexpr const char* kOdd[] = {"4000000", "x", "-1", "99999999999", "", " 4000000 "};
    op.text = std::string(kOdd[random_.below(6)]) + "\n";
  }
  return op;
}

Op Generator::hotplug_op(const Cpusets& model) {
  Op op;
  op.cpu = 1 + random_.below(7);
  int online = model.online_cpus().count();
  // Keeps a few CPUs up, or most writes would only meet offline ones.
  op.kind = online > 4 && random_.chance(55) ? Kind::kOffline : Kind::kOnline;
  if (op.kind == Kind::kOnline && online < 8 && random_.chance(90)) {
    Mask off = Mask::range(0, 7) - model.online_cpus();
    op.cpu = off.first();
  }
  return op;
}

Op Generator::next(const Cpusets& model) {
  bool v2 = model.hierarchy() == Hierarchy::kV2;
  int tasks = static_cast<int>(model.all_tasks().size()) - 1;
  int groups = static_cast<int>(model.groups().size()) - 1;
  Op op;
  if (tasks == 0) {
    op.kind = Kind::kFork;
    op.tid = 1;
    op.child = next_task_++;
    return op;
  }
  int pick = random_.below(1000);
  if (groups == 0 || (pick < 60 && groups < kMaxGroups)) {
    op.kind = Kind::kMkdir;
    std::string parent = random_.chance(50) ? "/" : group(model, true);
    if (std::count(parent.begin(), parent.end(), '/') > 2) parent = "/";
    op.path = (parent == "/" ? "" : parent) + "/" +
              std::string(1, static_cast<char>('a' + random_.below(4)));
    if (random_.chance(2)) op.path = "/none/a";
    return op;
  }
  if (pick < 90) {
    op.kind = Kind::kRmdir;
    op.path = group(model, false);
    return op;
  }
  if (pick < 530) return write_op(model);
  if (pick < 720) return attach_op(model);
  op.tid = task(model);
  if (pick < 790 && tasks < kMaxTasks) {
    op.kind = random_.chance(45) ? Kind::kThread : Kind::kFork;
    if (op.kind == Kind::kFork && random_.chance(15)) op.tid = 1;
    if (v2 && op.kind == Kind::kFork && random_.chance(35)) {
      op.kind = Kind::kForkInto;
      op.path = group(model, true);
    }
    op.child = next_task_++;
    return op;
  }
  if (pick < 830) {
    op.kind = tasks > 3 ? Kind::kExit : Kind::kWake;
    return op;
  }
  if (pick < 860) {
    op.kind = Kind::kWake;
    return op;
  }
  if (pick < 965) {
    op.kind = Kind::kAffinity;
    switch (random_.below(4)) {
      case 0:
        op.text = some_of(Mask::range(0, 7)).list();
        break;
      case 1:
        op.text = Mask{random_.below(8)}.list();
        break;
      case 2:
        op.text = some_of(model.effective_cpus(model.group_of(op.tid))).list();
        break;
      default:
        op.text = random_.chance(20) ? "" : some_of(model.cpus_mask(op.tid)).list();
    }
    if (random_.chance(3)) op.tid = kNoSuchTask;
    return op;
  }
  return hotplug_op(model);
}

int apply(const Op& op, Cpusets* model) {
  switch (op.kind) {
    case Kind::kMkdir:
      return model->mkdir(op.path).err;
    case Kind::kRmdir:
      return model->rmdir(op.path).err;
    case Kind::kWrite: {
      std::string text = op.text;
      if (text.starts_with('@')) text.erase(0, 1);
      return model->write(op.path, op.file, text).err;
    }
    case Kind::kFork:
      return model->fork(op.tid, op.child, false).err;
    case Kind::kThread:
      return model->fork(op.tid, op.child, true).err;
    case Kind::kForkInto:
      return model->fork_into(op.tid, op.child, op.path).err;
    case Kind::kExit:
      return model->exit(op.tid).err;
    case Kind::kWake:
      return model->wake(op.tid).err;
    case Kind::kAffinity: {
      Mask mask;
      model::parse_list(op.text, 8, &mask);
      return model->set_affinity(op.tid, mask).err;
    }
    case Kind::kOffline: {
      // The driver itself runs, so that a mask without an active CPU is replaced at once.
      int err = model->offline(op.cpu).err;
      model->wake(1);
      return err;
    }
    case Kind::kOnline:
      return model->online(op.cpu).err;
  }
  return EINVAL;
}

}  // namespace allot::kernel_test
