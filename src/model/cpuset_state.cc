// Walking the tree, moving tasks between css_sets, and reading the small texts users write.
#include "model/cpuset_state.h"

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <utility>

namespace allot::model {

int State::cpu_bits() const {
  if (machine.nr_cpu_ids > 0) return machine.nr_cpu_ids;
  int last = -1;
  for (int cpu = machine.possible_cpus.first(); cpu >= 0; cpu = machine.possible_cpus.next(cpu))
    last = cpu;
  return last + 1;
}

const Group* State::find(std::string_view path) const {
  const Group* group = &groups.at(0);
  while (path.starts_with('/')) path.remove_prefix(1);
  while (!path.empty()) {
    std::string_view name = path.substr(0, path.find('/'));
    path.remove_prefix(name.size());
    while (path.starts_with('/')) path.remove_prefix(1);
    const Group* next = nullptr;
    for (int child : group->children) {
      const std::string& full = groups.at(child).path;
      if (std::string_view(full).substr(full.rfind('/') + 1) == name) next = &groups.at(child);
    }
    if (next == nullptr) return nullptr;
    group = next;
  }
  return group;
}

Group* State::find(std::string_view path) {
  return const_cast<Group*>(std::as_const(*this).find(path));
}

int State::effective_css(int group) const {
  while (!at(group).cpuset) group = at(group).parent;
  return group;
}

std::vector<int> State::preorder(int from) const {
  std::vector<int> order;
  std::vector<int> stack{from};
  while (!stack.empty()) {
    int group = stack.back();
    stack.pop_back();
    order.push_back(group);
    const std::vector<int>& children = at(group).children;
    stack.insert(stack.end(), children.rbegin(), children.rend());
  }
  return order;
}

std::vector<int> State::css_preorder(int from) const {
  std::vector<int> order = preorder(from);
  std::erase_if(order, [&](int group) { return !at(group).cpuset; });
  return order;
}

std::vector<int> State::children_with_css(int group) const {
  std::vector<int> found = at(group).children;
  std::erase_if(found, [&](int child) { return !at(child).cpuset; });
  return found;
}

bool State::has_tasks(int group) const {
  return css_sets.count(group) != 0;
}

bool State::populated(int group) const {
  if (has_tasks(group)) return true;
  return std::any_of(at(group).children.begin(), at(group).children.end(),
                     [&](int child) { return populated(child); });
}

std::vector<int> State::tasks_ruled_by(int css_group) const {
  std::vector<int> found;
  for (const auto& [group, set] : css_sets) {
    if (set.cpuset == css_group) found.insert(found.end(), set.tasks.begin(), set.tasks.end());
  }
  return found;
}

std::vector<int> State::threads_of(int tgid) const {
  std::vector<int> found;
  for (const auto& [tid, task] : tasks) {
    if (task.tgid == tgid) found.push_back(tid);
  }
  std::sort(found.begin(), found.end(), [&](int a, int b) {
    if ((a == tgid) != (b == tgid)) return a == tgid;
    return tasks.at(a).born < tasks.at(b).born;
  });
  return found;
}

// Takes the task out of its css_set and appends it to that of the group (-1: none).
void State::move_task(Task* task, int group) {
  if (auto from = css_sets.find(task->group); from != css_sets.end()) {
    std::erase(from->second.tasks, task->tid);
    if (from->second.tasks.empty()) css_sets.erase(from);
  }
  task->group = group;
  if (group < 0) return;
  CssSet& set = css_sets[group];
  set.group = group;
  set.cpuset = effective_css(group);
  set.tasks.push_back(task->tid);
}

void State::relink_css_sets() {
  for (auto& [group, set] : css_sets) set.cpuset = effective_css(group);
}

std::string_view strip(std::string_view text) {
  if (size_t end = text.find('\0'); end != std::string_view::npos) text = text.substr(0, end);
  auto space = [](char c) { return std::isspace(static_cast<unsigned char>(c)) != 0; };
  while (!text.empty() && space(text.front())) text.remove_prefix(1);
  while (!text.empty() && space(text.back())) text.remove_suffix(1);
  return text;
}

int parse_unsigned(std::string_view text, uint64_t* value) {
  if (text.starts_with('+')) text.remove_prefix(1);
  unsigned base = 10;
  auto hex = [](char c) { return std::isxdigit(static_cast<unsigned char>(c)) != 0; };
  if (text.size() > 2 && text[0] == '0' && (text[1] == 'x' || text[1] == 'X') && hex(text[2])) {
    base = 16;
    text.remove_prefix(2);
  } else if (text.size() > 1 && text[0] == '0') {
    base = 8;
  }
  uint64_t total = 0;
  size_t used = 0;
  bool overflow = false;
  for (; used < text.size() && hex(text[used]); ++used) {
    char c = text[used];
    unsigned digit =
        c <= '9' ? static_cast<unsigned>(c - '0') : static_cast<unsigned>((c | 0x20) - 'a') + 10;
    if (digit >= base) break;
    uint64_t next = 0;
    if (__builtin_mul_overflow(total, uint64_t{base}, &next) ||
        __builtin_add_overflow(next, uint64_t{digit}, &next)) {
      overflow = true;
    }
    total = next;
  }
  if (overflow) return ERANGE;
  if (used == 0) return EINVAL;
  text.remove_prefix(used);
  if (text.starts_with('\n')) text.remove_prefix(1);
  if (!text.empty() && text[0] != '\0') return EINVAL;
  *value = total;
  return 0;
}

int parse_signed(std::string_view text, int64_t* value) {
  bool negative = text.starts_with('-');
  uint64_t magnitude = 0;
  if (negative) text.remove_prefix(1);
  if (negative && text.starts_with('+')) return EINVAL;
  if (int err = parse_unsigned(text, &magnitude)) return err;
  uint64_t limit = uint64_t{1} << 63;
  if (magnitude > limit || (magnitude == limit && !negative)) return ERANGE;
  *value = negative ? static_cast<int64_t>(~magnitude + 1) : static_cast<int64_t>(magnitude);
  return 0;
}

Outcome failure(int err, Why why, std::string_view group, const Mask& cpus, const Mask& mems) {
  Outcome outcome;
  outcome.err = err;
  outcome.reason.why = why;
  outcome.reason.group = std::string(group);
  outcome.reason.cpus = cpus;
  outcome.reason.mems = mems;
  return outcome;
}

}  // namespace allot::model
